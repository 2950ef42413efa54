// Whether numbers in memory have changed, at the speed of memory.
#include <cstdint>
#include <cstring>

namespace {
constexpr int64_t kLanes = 64;  // sums side by side, so that none waits for its own multiplication
constexpr uint32_t kFactor = 0x9E3779B1;  // odd: no power of it loses a bit, so one changed word always changes its sum
}  // namespace

// sums [64]: of all words of `count` stretches of memory, each times a power of the factor for its place.
extern "C" void digest(const void* const* data, const int64_t* bytes, int64_t count, uint32_t* sums) {
    uint32_t total[kLanes] = {};
    for (int64_t n = 0; n < count; n++) {
        const char* from = static_cast<const char*>(data[n]);
        for (int64_t left = bytes[n]; left > 0; left -= 4 * kLanes, from += 4 * kLanes) {
            uint32_t words[kLanes] = {};
            std::memcpy(words, from, left < 4 * kLanes ? left : 4 * kLanes);
#pragma omp simd
            for (int64_t i = 0; i < kLanes; i++) total[i] = total[i] * kFactor + words[i];
        }
    }
    std::memcpy(sums, total, sizeof(total));
}
