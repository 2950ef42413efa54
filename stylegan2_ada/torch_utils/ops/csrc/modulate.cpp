// out = phi(x * scale + noise + bias) on channels-last images, with all its gradients in one pass.
#include "bias_act.h"
#include "simd.h"

namespace {

constexpr int64_t kChunk = 128;  // pixels whose sums are added up before they meet others, whatever the number of threads

struct Shape {
    int64_t batch, pixels, channels;  // scale [batch, channels], noise [batch, pixels], bias [channels]
};

template <class T, int ACT>
void forward(const T* x, const T* scale, const T* noise, const T* bias, T* out, Shape s, BiasAct<T> op, int threads) {
    const Buffer<T> ones(scale ? 0 : s.channels, T(1)), zeros(bias ? 0 : s.channels, T(0));
    const T* b = bias ? bias : zeros.data();
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t pixel = 0; pixel < s.batch * s.pixels; pixel++) {
        const T* factor = scale ? scale + pixel / s.pixels * s.channels : ones.data();
        const T shift = noise ? noise[pixel] : T(0);
        const T* in = x + pixel * s.channels;
        T* to = out + pixel * s.channels;
#pragma omp simd
        for (int64_t c = 0; c < s.channels; c++) to[c] = op.template forward<ACT>(in[c] * factor[c] + shift + b[c]);
    }
}

// The sums over one chunk of an image: of g (-> dbias) and of g * x (-> dscale), with g = dy * phi'.
template <class T, int ACT, bool SCALED>
void backward_chunk(const T* dy, const T* x, const T* factor, const T* y, T* dx, T* dnoise, T* sum, T* sum_x, int64_t pixels,
                    int64_t channels, BiasAct<T> op) {
    for (int64_t pixel = 0; pixel < pixels; pixel++, dy += channels, x += SCALED ? channels : 0, y += channels, dx += channels) {
        T over_channels = 0;
#pragma omp simd reduction(+ : over_channels)
        for (int64_t c = 0; c < channels; c++) {
            const T g = dy[c] * op.template derivative<ACT, 1>(y[c]);
            over_channels += g;
            sum[c] += g;
            if (SCALED) sum_x[c] += g * x[c];
            dx[c] = SCALED ? g * factor[c] : g;
        }
        if (dnoise) dnoise[pixel] = over_channels;
    }
}

template <class T, int ACT>
void backward(const T* dy, const T* x, const T* scale, const T* y, T* dx, T* dscale, T* dnoise, T* dbias, Shape s, BiasAct<T> op,
              int threads) {
    const int64_t chunks = (s.pixels + kChunk - 1) / kChunk, all = s.batch * chunks;
    Buffer<T> sums(2 * all * s.channels, 0);  // [chunk, (sum, sum_x), channel]
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < all; i++) {
        const int64_t image = i / chunks, start = i % chunks * kChunk, first = image * s.pixels + start;
        const int64_t pixels = s.pixels - start < kChunk ? s.pixels - start : kChunk, at = first * s.channels;
        T *sum = sums.data() + 2 * i * s.channels, *sum_x = sum + s.channels, *dn = dnoise ? dnoise + first : nullptr;
        if (scale)
            backward_chunk<T, ACT, true>(dy + at, x + at, scale + image * s.channels, y + at, dx + at, dn, sum, sum_x, pixels, s.channels, op);
        else
            backward_chunk<T, ACT, false>(dy + at, nullptr, nullptr, y + at, dx + at, dn, sum, sum_x, pixels, s.channels, op);
    }
    for (int64_t c = 0; c < s.channels; c++) {
        double total = 0;
        for (int64_t image = 0; image < s.batch; image++) {
            double total_x = 0;
            for (int64_t i = image * chunks; i < (image + 1) * chunks; i++) {
                total += sums[2 * i * s.channels + c];
                total_x += sums[(2 * i + 1) * s.channels + c];
            }
            if (dscale) dscale[image * s.channels + c] = T(total_x);
        }
        if (dbias) dbias[c] = T(total);
    }
}

}  // namespace

// scale, noise, bias and their gradients may be null. In `backward`, y is what `forward` gave.
#define EXPORT(T)                                                                                                        \
    extern "C" void modulate_##T(int act, const T* x, const T* scale, const T* noise, const T* bias, T* out, int64_t batch, \
                                 int64_t pixels, int64_t channels, double alpha, double gain, double clamp, int threads) { \
        const auto run = act == RELU ? forward<T, RELU> : act == LRELU ? forward<T, LRELU> : forward<T, LINEAR>;           \
        run(x, scale, noise, bias, out, {batch, pixels, channels}, {T(alpha), T(gain), T(clamp)}, threads);               \
    }                                                                                                                    \
    extern "C" void modulate_backward_##T(int act, const T* dy, const T* x, const T* scale, const T* y, T* dx, T* dscale,  \
                                          T* dnoise, T* dbias, int64_t batch, int64_t pixels, int64_t channels,           \
                                          double alpha, double gain, double clamp, int threads) {                        \
        const auto run = act == RELU ? backward<T, RELU> : act == LRELU ? backward<T, LRELU> : backward<T, LINEAR>;        \
        run(dy, x, scale, y, dx, dscale, dnoise, dbias, {batch, pixels, channels}, {T(alpha), T(gain), T(clamp)}, threads); \
    }
EXPORT(float)
EXPORT(double)
