// Whether numbers in memory have changed, at the speed of memory.
#include <cstdint>
#include <cstring>

namespace {
constexpr int64_t kLanes = 32;  // side by side, so that none waits for its own multiplication
constexpr uint64_t kWord = 0x9E3779B97F4A7C15, kLane = 0xD6E8FEB86659FD93;  // odd: a product loses no bit
}  // namespace

// lanes [32]: a hash of `count` stretches of memory, by words of 8 bytes.
// Shifts bring high bits down and products carry low bits up, so that every bit of a word moves all bits of its lane:
// signs that flip and numbers that double differ in high bits alone, and a sum of products would lose these.
// Each step can be undone, so one changed word always changes its lane; several cancel by chance alone, once in 2^64.
extern "C" void digest(const void* const* data, const int64_t* bytes, int64_t count, uint64_t* lanes) {
    uint64_t total[kLanes] = {};
    for (int64_t n = 0; n < count; n++) {
        const char* from = static_cast<const char*>(data[n]);
        for (int64_t left = bytes[n]; left > 0; left -= 8 * kLanes, from += 8 * kLanes) {
            uint64_t words[kLanes] = {};
            std::memcpy(words, from, left < 8 * kLanes ? left : 8 * kLanes);
#pragma omp simd
            for (int64_t i = 0; i < kLanes; i++) {
                uint64_t word = (words[i] ^ words[i] >> 32) * kWord;
                uint64_t lane = (total[i] ^ word ^ word >> 29) * kLane;
                total[i] = lane ^ lane >> 32;
            }
        }
    }
    std::memcpy(lanes, total, sizeof(total));
}
