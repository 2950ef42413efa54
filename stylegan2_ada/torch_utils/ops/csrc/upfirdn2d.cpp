// upfirdn2d on the CPU: rows of the input are added up along the filter's columns, then the sums are filtered along its
// rows. Vectors run along rows, or along the channels of channels-last images; those are worked on in strips of few
// pixels, from top to bottom, so that what the filter's height needs stays in the cache. Filters that are not the product
// of a column and a row take the slow path that CUDA takes.
#include "upfirdn2d.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "simd.h"

namespace {

// A filter that is the product of a column and a row. No column: it is not.
template <class T>
struct Product {
    std::vector<T> column, row;

    Product(const float* filter, int64_t height, int64_t width) : column(height), row(width) {
        const auto smaller = [](float a, float b) { return std::abs(a) < std::abs(b); };
        const int64_t peak = std::max_element(filter, filter + height * width, smaller) - filter;
        if (filter[peak] == 0) return;
        for (int64_t y = 0; y < height; y++) column[y] = T(filter[y * width + peak % width]) / T(filter[peak]);
        for (int64_t x = 0; x < width; x++) row[x] = T(filter[peak / width * width + x]);
        double worst = 0;
        for (int64_t i = 0; i < height * width; i++)
            worst = std::max(worst, std::abs(double(column[i / width]) * row[i % width] - filter[i]));
        if (worst > std::abs(filter[peak]) * 1e-7) column.clear();
    }
};

// The taps of a filter along one axis that meet a pixel, and the inputs that they read there.
struct Meeting {
    int64_t tap, in;
};
std::vector<Meeting> meetings(int64_t out, int64_t taps, int64_t up, int64_t down, int64_t before) {
    std::vector<Meeting> found;
    for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t u = out * down + tap - before, in = floor_div(u, up);
        if (in * up == u) found.push_back({tap, in});
    }
    return found;
}

// A weighted sum of rows of numbers
template <class T>
struct Terms {
    std::vector<const T*> from;
    std::vector<T> weight;
    size_t count = 0;

    explicit Terms(int64_t most) : from(most), weight(most) {}
    void add(const T* row, T w) {
        from[count] = row;
        weight[count++] = w;
    }
};

template <class T, int N, bool FIRST>
INLINE void add_some(T* to, const T* const* from, const T* weight, int64_t size) {
    const T *a = from[0], *b = from[N > 1 ? 1 : 0], *c = from[N > 2 ? 2 : 0], *d = from[N > 3 ? 3 : 0];
    const T wa = weight[0], wb = weight[N > 1 ? 1 : 0], wc = weight[N > 2 ? 2 : 0], wd = weight[N > 3 ? 3 : 0];
#pragma omp simd
    for (int64_t i = 0; i < size; i++) {
        T sum = a[i] * wa;
        if (N > 1) sum += b[i] * wb;
        if (N > 2) sum += c[i] * wc;
        if (N > 3) sum += d[i] * wd;
        to[i] = FIRST ? sum : to[i] + sum;
    }
}

template <class T, bool FIRST>
INLINE void add_up_to_4(T* to, const T* const* from, const T* weight, int64_t count, int64_t size) {
    switch (count) {
        case 1: return add_some<T, 1, FIRST>(to, from, weight, size);
        case 2: return add_some<T, 2, FIRST>(to, from, weight, size);
        case 3: return add_some<T, 3, FIRST>(to, from, weight, size);
        default: return add_some<T, 4, FIRST>(to, from, weight, size);
    }
}

// to[i] = the sum
template <class T>
void weighted_sum(T* to, const Terms<T>& terms, int64_t size) {
    const T* const* from = terms.from.data();
    const T* weight = terms.weight.data();
    if (terms.count == 0) std::memset(to, 0, sizeof(T) * size);
    for (size_t i = 0; i < terms.count; i += 4) {
        if (i == 0) add_up_to_4<T, true>(to, from, weight, terms.count, size);
        else add_up_to_4<T, false>(to, from + i, weight + i, terms.count - i, size);
    }
}

// Takes every `stride`-th number of `from` into a segment of its own, or puts them back in turn.
template <class T>
void deal(const T* from, T* to, int64_t size, int64_t stride, int64_t segment) {
    if (stride == 2) {
#pragma omp simd
        for (int64_t i = 0; i < size / 2; i++) to[i] = from[2 * i], to[segment + i] = from[2 * i + 1];
        if (size % 2) to[size / 2] = from[size - 1];
    } else {
        for (int64_t i = 0; i < size; i++) to[i % stride * segment + i / stride] = from[i];
    }
}

template <class T>
void gather(const T* from, T* to, int64_t size, int64_t stride, int64_t segment) {
    if (stride == 2) {
#pragma omp simd
        for (int64_t i = 0; i < size / 2; i++) to[2 * i] = from[i], to[2 * i + 1] = from[segment + i];
        if (size % 2) to[size - 1] = from[size / 2];
    } else {
        for (int64_t i = 0; i < size; i++) to[i] = from[i % stride * segment + i / stride];
    }
}

constexpr int64_t kRows = 8;         // whose sums are made before the first is read: memory is slow to give back what was just written
constexpr int64_t kStrip = 1 << 10;  // numbers in a row of a channels-last strip

// Outputs of columns [first, last) and the inputs that they read, [in, in + width).
struct Strip {
    int64_t first, last, in, width;
};

template <class T>
struct Filter {
    Upfirdn p;
    Product<T> product;
    std::vector<std::vector<Meeting>> rows, columns;
    std::vector<Strip> strips;
    // Outputs of a row that agree modulo `period` meet the same taps, at inputs `stride` apart. (One number a pixel only.)
    int64_t period, stride, in_segment = 0, out_segment;

    Filter(const Upfirdn& params, const float* filter) : p(params), product(filter, p.filter_h, p.filter_w) {
        for (int64_t oy = 0; oy < p.out_h; oy++) rows.push_back(meetings(oy, p.filter_h, p.up_y, p.down_y, p.top));
        for (int64_t ox = 0; ox < p.out_w; ox++) columns.push_back(meetings(ox, p.filter_w, p.up_x, p.down_x, p.left));
        period = p.up_x / std::gcd(p.up_x, p.down_x), stride = p.down_x / std::gcd(p.up_x, p.down_x);
        const int64_t step = p.vector == 1 ? p.out_w : std::max<int64_t>(kStrip * p.up_x / p.down_x / p.vector, 4);
        for (int64_t first = 0; first < p.out_w; first += step) {
            const int64_t last = std::min(first + step, p.out_w), in = floor_div(first * p.down_x - p.left, p.up_x);
            strips.push_back({first, last, in, floor_div((last - 1) * p.down_x + p.filter_w - 1 - p.left, p.up_x) - in + 1});
            in_segment = std::max(in_segment, (strips.back().width + stride - 1) / stride);
        }
        out_segment = (p.out_w + period - 1) / period;
    }

    struct Space {
        Buffer<T> sums, dealt, out;  // rows of inputs with the zeros around them, and a row of outputs
        Terms<T> terms;
    };
    Space space() const {
        return {Buffer<T>(kRows * in_segment * stride * p.vector, 0), Buffer<T>(in_segment * stride, 0),
                Buffer<T>(out_segment * period, 0), Terms<T>(std::max(p.filter_h, p.filter_w))};
    }

    // All output rows of a strip of an image
    void run(const T* image, const Strip& strip, T* out, Space& s) const {
        const int64_t row = strip.width * p.vector;
        for (int64_t oy = 0; oy < p.out_h; oy += kRows) {
            const int64_t last = std::min(oy + kRows, p.out_h);
            for (int64_t y = oy; y < last; y++) add_rows(image, y, strip, s.sums.data() + (y - oy) * row, s);
            for (int64_t y = oy; y < last; y++) {
                const T* sums = s.sums.data() + (y - oy) * row;
                if (p.vector == 1) along_row(sums, strip, out + y * p.out_w, s);
                else along_pixels(sums, strip, out + y * p.out_w * p.vector, s);
            }
        }
    }

    void add_rows(const T* image, int64_t oy, const Strip& strip, T* sums, Space& s) const {
        const int64_t x0 = std::max<int64_t>(strip.in, 0), x1 = std::min(strip.in + strip.width, p.in_w);
        s.terms.count = 0;
        for (const Meeting& y : rows[oy])
            if (y.in >= 0 && y.in < p.in_h && product.column[y.tap] != 0)
                s.terms.add(image + (y.in * p.in_w + x0) * p.vector, product.column[y.tap]);
        std::fill(sums, sums + strip.width * p.vector, T(0));
        if (x0 < x1) weighted_sum(sums + (x0 - strip.in) * p.vector, s.terms, (x1 - x0) * p.vector);
    }

    void along_row(const T* sums, const Strip& strip, T* out, Space& s) const {
        if (stride > 1) deal(sums, s.dealt.data(), strip.width, stride, in_segment);
        const T* in = stride > 1 ? s.dealt.data() : sums;
        for (int64_t phase = 0; phase < std::min(period, p.out_w); phase++) {
            s.terms.count = 0;
            for (const Meeting& x : columns[phase]) {
                const int64_t at = x.in - strip.in;
                s.terms.add(in + at % stride * in_segment + at / stride, product.row[x.tap]);
            }
            T* to = period > 1 ? s.out.data() + phase * out_segment : out;
            weighted_sum(to, s.terms, (p.out_w - phase + period - 1) / period);
        }
        if (period > 1) gather(s.out.data(), out, p.out_w, period, out_segment);
    }

    void along_pixels(const T* sums, const Strip& strip, T* out, Space& s) const {
        for (int64_t ox = strip.first; ox < strip.last; ox++) {
            s.terms.count = 0;
            for (const Meeting& x : columns[ox]) s.terms.add(sums + (x.in - strip.in) * p.vector, product.row[x.tap]);
            weighted_sum(out + ox * p.vector, s.terms, p.vector);
        }
    }
};

template <class T>
void separable(const Filter<T>& filter, const T* x, T* out, const Upfirdn& p, int threads) {
    const int64_t strips = filter.strips.size();
#pragma omp parallel num_threads(threads)
    {
        auto space = filter.space();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < p.planes * strips; i++)
            filter.run(x + i / strips * p.in_h * p.in_w * p.vector, filter.strips[i % strips],
                       out + i / strips * p.out_h * p.out_w * p.vector, space);
    }
}

template <class T>
void upfirdn2d(const T* x, const float* weights, T* out, const Upfirdn& p, int threads) {
    const Filter<T> filter(p, weights);
    if (!filter.product.column.empty()) return separable(filter, x, out, p, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < p.planes * p.out_h * p.out_w * p.vector; i++) out[i] = upfirdn_number<T, T>(x, weights, p, i);
}

}  // namespace

// x, out: [planes, height, width, vector]
extern "C" void upfirdn2d_float(const float* x, const float* filter, float* out, const Upfirdn* p, int threads) {
    upfirdn2d(x, filter, out, *p, threads);
}
extern "C" void upfirdn2d_double(const double* x, const float* filter, double* out, const Upfirdn* p, int threads) {
    upfirdn2d(x, filter, out, *p, threads);
}
