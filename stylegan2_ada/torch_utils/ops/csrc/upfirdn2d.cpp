// upfirdn2d on the CPU: threads over planes (or rows of channels-last images), vectors along rows (or channels).
#include "upfirdn2d.h"

#include <cstring>
#include <numeric>
#include <vector>

#include "simd.h"

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

// The taps of a filter along one axis that meet a pixel, for every output position.
struct Meeting {
    int64_t tap, in;
};
std::vector<std::vector<Meeting>> meetings(int64_t out, int64_t taps, int64_t up, int64_t down, int64_t before, int64_t in) {
    std::vector<std::vector<Meeting>> all(out);
    for (int64_t o = 0; o < out; o++)
        for (int64_t tap = 0; tap < taps; tap++) {
            const int64_t u = o * down + tap - before, i = floor_div(u, up);
            if (i * up == u && i >= 0 && i < in) all[o].push_back({tap, i});
        }
    return all;
}

// to[0 … COUNT vectors] = sum of weights[t] * from[t][start …]
template <class T, int COUNT>
void sum_pixels(T* to, const std::vector<const T*>& from, const std::vector<T>& weights, int64_t start) {
    typedef typename Simd<T>::type V;
    V sum[COUNT] = {};
    for (size_t t = 0; t < from.size(); t++)
        for (int i = 0; i < COUNT; i++) sum[i] += *(const V*)(from[t] + start + i * Simd<T>::lanes) * weights[t];
    for (int i = 0; i < COUNT; i++) *(V*)(to + start + i * Simd<T>::lanes) = sum[i];
}

// Channels-last: every output pixel is a weighted sum of pixels.
template <class T>
void pixels(const T* x, const float* filter, T* out, const Upfirdn& p, int threads) {
    constexpr int64_t lanes = Simd<T>::lanes;
    const auto rows = meetings(p.out_h, p.filter_h, p.up_y, p.down_y, p.top, p.in_h);
    const auto columns = meetings(p.out_w, p.filter_w, p.up_x, p.down_x, p.left, p.in_w);
#pragma omp parallel num_threads(threads)
    {
        std::vector<const T*> from;
        std::vector<T> weights;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < p.planes * p.out_h; row++)
            for (int64_t ox = 0; ox < p.out_w; ox++) {
                from.clear(), weights.clear();
                for (const Meeting& y : rows[row % p.out_h])
                    for (const Meeting& at : columns[ox]) {
                        from.push_back(x + ((row / p.out_h * p.in_h + y.in) * p.in_w + at.in) * p.vector);
                        weights.push_back(T(filter[y.tap * p.filter_w + at.tap]));
                    }
                T* to = out + (row * p.out_w + ox) * p.vector;
                int64_t v = 0;
                for (; v + 4 * lanes <= p.vector; v += 4 * lanes) sum_pixels<T, 4>(to, from, weights, v);
                for (; v + lanes <= p.vector; v += lanes) sum_pixels<T, 1>(to, from, weights, v);
                for (; v < p.vector; v++) {
                    T sum = 0;
                    for (size_t t = 0; t < from.size(); t++) sum += from[t][v] * weights[t];
                    to[v] = sum;
                }
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
