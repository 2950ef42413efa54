// upfirdn2d on the CPU: threads over planes (or rows of channels-last images), vectors along rows (or channels).
#include "upfirdn2d.h"

#include <cstring>
#include <numeric>
#include <vector>

namespace {

constexpr int kTaps = 4;  // filter taps that one pass over a row adds

template <class T, int N>
void add_taps(T* out, const T* const* in, const T* weights, int64_t size, bool first) {
    const T w0 = weights[0], w1 = N > 1 ? weights[1] : 0, w2 = N > 2 ? weights[2] : 0, w3 = N > 3 ? weights[3] : 0;
    const T *a = in[0], *b = in[N > 1 ? 1 : 0], *c = in[N > 2 ? 2 : 0], *d = in[N > 3 ? 3 : 0];
#pragma omp simd
    for (int64_t i = 0; i < size; i++) {
        T sum = first ? T(0) : out[i];
        sum += w0 * a[i];
        if (N > 1) sum += w1 * b[i];
        if (N > 2) sum += w2 * c[i];
        if (N > 3) sum += w3 * d[i];
        out[i] = sum;
    }
}

// out[i] (+)= sum of weights[t] * in[t][i]
template <class T>
void add_rows(T* out, const std::vector<const T*>& in, const std::vector<T>& weights, int64_t size, bool first) {
    for (size_t start = 0; start < in.size(); start += kTaps) {
        const size_t count = in.size() - start < kTaps ? in.size() - start : kTaps;
        const T* const* rows = in.data() + start;
        const T* w = weights.data() + start;
        if (count == 1) add_taps<T, 1>(out, rows, w, size, first);
        if (count == 2) add_taps<T, 2>(out, rows, w, size, first);
        if (count == 3) add_taps<T, 3>(out, rows, w, size, first);
        if (count == 4) add_taps<T, 4>(out, rows, w, size, first);
        first = false;
    }
}

// Planes are copied into a buffer with zeros around them, so that no tap needs to look where it is. Outputs whose
// columns agree modulo `period` meet the same taps, at input columns `stride` apart; the buffer keeps such columns together.
template <class T>
struct PlaneFilter {
    Upfirdn p;
    const float* filter;
    int64_t period, stride, first_x, first_y, padded_w, padded_h, segment;

    PlaneFilter(const Upfirdn& params, const float* weights) : p(params), filter(weights) {
        const int64_t common = std::gcd(p.up_x, p.down_x);
        period = p.up_x / common;
        stride = p.down_x / common;
        first_x = floor_div(-p.left, p.up_x);
        first_y = floor_div(-p.top, p.up_y);
        padded_w = floor_div((p.out_w - 1) * p.down_x + p.filter_w - 1 - p.left, p.up_x) - first_x + 1;
        padded_h = floor_div((p.out_h - 1) * p.down_y + p.filter_h - 1 - p.top, p.up_y) - first_y + 1;
        segment = (padded_w + stride - 1) / stride;
    }

    int64_t buffer_size() const { return padded_h * segment * stride; }

    void fill(const T* image, T* buffer) const {
        std::memset(buffer, 0, sizeof(T) * buffer_size());
        const int64_t y0 = first_y > 0 ? first_y : 0, y1 = first_y + padded_h < p.in_h ? first_y + padded_h : p.in_h;
        const int64_t x0 = first_x > 0 ? first_x : 0, x1 = first_x + padded_w < p.in_w ? first_x + padded_w : p.in_w;
        for (int64_t y = y0; y < y1; y++) {
            const T* from = image + y * p.in_w;
            T* to = buffer + (y - first_y) * segment * stride;
            if (stride == 1) {
                if (x1 > x0) std::memcpy(to + x0 - first_x, from + x0, sizeof(T) * (x1 - x0));
            } else {
                for (int64_t x = x0; x < x1; x++) to[(x - first_x) % stride * segment + (x - first_x) / stride] = from[x];
            }
        }
    }

    void run(const T* image, T* out, T* buffer, T* phase) const {
        fill(image, buffer);
        std::vector<const T*> rows;
        std::vector<T> weights;
        for (int64_t oy = 0; oy < p.out_h; oy++) {
            for (int64_t start = 0; start < period && start < p.out_w; start++) {
                rows.clear();
                weights.clear();
                const int64_t size = (p.out_w - start + period - 1) / period;
                for (int64_t fy = 0; fy < p.filter_h; fy++) {
                    const int64_t uy = oy * p.down_y + fy - p.top;
                    const int64_t iy = floor_div(uy, p.up_y);
                    if (iy * p.up_y != uy || iy < 0 || iy >= p.in_h) continue;
                    const T* row = buffer + (iy - first_y) * segment * stride;
                    for (int64_t fx = 0; fx < p.filter_w; fx++) {
                        const int64_t ux = start * p.down_x + fx - p.left;
                        const int64_t ix = floor_div(ux, p.up_x);
                        if (ix * p.up_x != ux) continue;
                        rows.push_back(row + (ix - first_x) % stride * segment + (ix - first_x) / stride);
                        weights.push_back(T(filter[fy * p.filter_w + fx]));
                    }
                }
                T* to = out + oy * p.out_w;
                if (rows.empty()) {
                    for (int64_t i = 0; i < size; i++) to[start + i * period] = 0;
                } else if (period == 1) {
                    add_rows(to, rows, weights, size, true);
                } else {
                    add_rows(phase, rows, weights, size, true);
                    for (int64_t i = 0; i < size; i++) to[start + i * period] = phase[i];
                }
            }
        }
    }
};

template <class T>
void planes(const T* x, const float* filter, T* out, const Upfirdn& p, int threads) {
    const PlaneFilter<T> plane_filter(p, filter);
#pragma omp parallel num_threads(threads)
    {
        std::vector<T> buffer(plane_filter.buffer_size()), phase(p.out_w);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < p.planes; i++)
            plane_filter.run(x + i * p.in_h * p.in_w, out + i * p.out_h * p.out_w, buffer.data(), phase.data());
    }
}

template <class T>
void pixels(const T* x, const float* filter, T* out, const Upfirdn& p, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < p.planes * p.out_h; row++) {
        const int64_t image = row / p.out_h, oy = row % p.out_h;
        std::vector<const T*> taps;
        std::vector<T> weights;
        for (int64_t ox = 0; ox < p.out_w; ox++) {
            taps.clear();
            weights.clear();
            for (int64_t fy = 0; fy < p.filter_h; fy++) {
                const int64_t uy = oy * p.down_y + fy - p.top, iy = floor_div(uy, p.up_y);
                if (iy * p.up_y != uy || iy < 0 || iy >= p.in_h) continue;
                for (int64_t fx = 0; fx < p.filter_w; fx++) {
                    const int64_t ux = ox * p.down_x + fx - p.left, ix = floor_div(ux, p.up_x);
                    if (ix * p.up_x != ux || ix < 0 || ix >= p.in_w) continue;
                    taps.push_back(x + ((image * p.in_h + iy) * p.in_w + ix) * p.vector);
                    weights.push_back(T(filter[fy * p.filter_w + fx]));
                }
            }
            T* to = out + (row * p.out_w + ox) * p.vector;
            if (taps.empty()) std::memset(to, 0, sizeof(T) * p.vector);
            add_rows(to, taps, weights, p.vector, true);
        }
    }
}

template <class T>
void upfirdn2d(const T* x, const float* filter, T* out, const Upfirdn& p, int threads) {
    if (p.vector == 1) planes(x, filter, out, p, threads);
    else pixels(x, filter, out, p, threads);
}

}  // namespace

extern "C" void upfirdn2d_float(const float* x, const float* filter, float* out, const Upfirdn* p, int threads) {
    upfirdn2d(x, filter, out, *p, threads);
}
extern "C" void upfirdn2d_double(const double* x, const float* filter, double* out, const Upfirdn* p, int threads) {
    upfirdn2d(x, filter, out, *p, threads);
}
