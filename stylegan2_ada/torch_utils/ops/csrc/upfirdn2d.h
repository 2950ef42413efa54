// What upfirdn2d computes:
//   out[oy][ox] = sum over fy, fx of filter[fy][fx] * U[oy * down_y + fy - top][ox * down_x + fx - left]
// U: the image with up - 1 zeros after every pixel, and zeros around it. The filter is given as a correlation reads it.
#pragma once
#include <cstdint>

struct Upfirdn {
    int64_t planes, in_h, in_w, out_h, out_w, filter_h, filter_w, up_x, up_y, down_x, down_y, left, top;
    int64_t vector;  // numbers a pixel: 1, or the channels of a channels-last image (then planes are images)
};

#define INLINE inline __attribute__((always_inline))

// a / b and a mod b, rounded down, for any a and positive b
INLINE int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// One number of one output pixel
template <class T, class C>
INLINE C upfirdn_at(const T* image, const float* filter, const Upfirdn& p, int64_t oy, int64_t ox, int64_t v) {
    C sum = 0;
    for (int64_t fy = 0; fy < p.filter_h; fy++) {
        const int64_t uy = oy * p.down_y + fy - p.top;
        if (uy < 0 || uy % p.up_y || uy / p.up_y >= p.in_h) continue;
        for (int64_t fx = 0; fx < p.filter_w; fx++) {
            const int64_t ux = ox * p.down_x + fx - p.left;
            if (ux < 0 || ux % p.up_x || ux / p.up_x >= p.in_w) continue;
            const int64_t pixel = uy / p.up_y * p.in_w + ux / p.up_x;
            sum += C(filter[fy * p.filter_w + fx]) * C(image[pixel * p.vector + v]);
        }
    }
    return sum;
}

// Number i of the output [planes, out_h, out_w, vector]
template <class T, class C>
INLINE C upfirdn_number(const T* x, const float* filter, const Upfirdn& p, int64_t i) {
    const int64_t v = i % p.vector, ox = i / p.vector % p.out_w, oy = i / (p.vector * p.out_w) % p.out_h;
    const int64_t plane = i / (p.vector * p.out_w * p.out_h);
    return upfirdn_at<T, C>(x + plane * p.in_h * p.in_w * p.vector, filter, p, oy, ox, v);
}
