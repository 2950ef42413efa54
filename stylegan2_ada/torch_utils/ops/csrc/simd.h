// Vectors of the processor that a kernel is compiled for, in the notation of GCC and Clang.
#pragma once
#include <cstdint>

#define INLINE inline __attribute__((always_inline))

#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#else
constexpr int kVectorBytes = 32;
#endif

template <class T>
struct Simd {
    typedef T type __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));  // anywhere in memory
    static constexpr int64_t lanes = kVectorBytes / sizeof(T);
};
