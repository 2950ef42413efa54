// Vectors of the processor that a kernel is compiled for, in the notation of GCC and Clang.
#pragma once
#include <cstdint>
#include <new>
#include <vector>

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

// A number or a vector anywhere in memory (as arguments of templates, vector types forget how they are aligned)
template <class W, class T>
INLINE W load(const T* from) {
    W value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <class W, class T>
INLINE void store(T* to, const W& value) {
    __builtin_memcpy(to, &value, sizeof value);
}

// Memory whose vectors do not lie across two lines of the cache
template <class T>
struct Aligned {
    typedef T value_type;
    Aligned() = default;
    template <class U>
    Aligned(const Aligned<U>&) {}
    T* allocate(size_t size) { return static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* memory, size_t) { ::operator delete(memory, std::align_val_t(64)); }
    template <class U>
    void construct(U*) {}  // leaves memory as it is
    template <class U>
    void construct(U* place, const T& value) { *place = value; }
    bool operator==(const Aligned&) const { return true; }
    bool operator!=(const Aligned&) const { return false; }
};

template <class T>
using Buffer = std::vector<T, Aligned<T>>;  // (size) holds anything, (size, 0) zeros
