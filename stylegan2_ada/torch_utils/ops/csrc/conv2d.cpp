// Convolutions of channels-last images on the CPU, their adjoints, and their gradients with respect to weights.
//
// Everything is one small matrix product in registers (`multiply`): R rows of pixels times a panel of weights of
// 2 vectors. Most 3×3 kernels run in one of Winograd's forms (Lavin and Gray 2016), which need fewer multiplications:
// patches of pixels, transformed, become independent matrix products over channels (`by_shape` says which). All other
// kernels are summed tap by tap. No sum depends on the number of threads or on the other images of a batch.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "simd.h"

namespace {

#ifdef __AVX512F__
constexpr int kRows = 8;  // as many as keep the processor's registers busy
#else
constexpr int kRows = 6;
#endif

template <class T>
constexpr int64_t kPanel = 2 * Simd<T>::lanes;

struct Conv {
    int64_t batch, in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w, stride, pad_y, pad_x;
    int64_t transposed;       // out[i * stride + k - pad] += in[i] * w[k] instead of out[i] += in[i * stride + k - pad] * w[k]
    int64_t step_o, step_i;   // how far apart the weights of neighbouring output and input channels lie
    int64_t threads;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// out[r] = (or +=) sum over i of a[r][i * a_step] * b[i * b_step], for a panel's two vectors.
template <class T, int R>
INLINE void multiply(const T* const* a, int64_t a_step, const T* b, int64_t b_step, int64_t size,
                     typename Simd<T>::type (&sum)[R][2]) {
    typedef typename Simd<T>::type V;
    for (int64_t i = 0; i < size; i++, b += b_step) {
        const V b0 = *(const V*)b, b1 = *(const V*)(b + Simd<T>::lanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const T factor = a[r][i * a_step];
            sum[r][0] += b0 * factor;
            sum[r][1] += b1 * factor;
        }
    }
}

// Adds (ADD) or writes R rows of a product to `out`, whose rows are `out_step` apart.
template <class T, int R, bool ADD>
INLINE void product_rows(const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t size, T* out, int64_t out_step) {
    typedef typename Simd<T>::type V;
    const T* rows[R];
    V sum[R][2];
    for (int r = 0; r < R; r++) {
        rows[r] = a + r * a_row;
        for (int v = 0; v < 2; v++) sum[r][v] = ADD ? *(V*)(out + r * out_step + v * Simd<T>::lanes) : V{};
    }
    multiply<T, R>(rows, a_step, b, kPanel<T>, size, sum);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < 2; v++) *(V*)(out + r * out_step + v * Simd<T>::lanes) = sum[r][v];
}

template <class T, int R, bool ADD>
void last_rows(int64_t count, const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t size, T* out, int64_t out_step) {
    if (count == R) return product_rows<T, R, ADD>(a, a_row, a_step, b, size, out, out_step);
    if constexpr (R > 1) last_rows<T, R - 1, ADD>(count, a, a_row, a_step, b, size, out, out_step);
}

// out[row] = (or +=) sum over i of a[row * a_row + i * a_step] * b[i], with b a panel [size, 2 vectors].
template <class T, bool ADD>
void product(int64_t rows, const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t size, T* out, int64_t out_step) {
    for (; rows >= kRows; rows -= kRows, a += kRows * a_row, out += kRows * out_step)
        product_rows<T, kRows, ADD>(a, a_row, a_step, b, size, out, out_step);
    if (rows) last_rows<T, kRows - 1, ADD>(rows, a, a_row, a_step, b, size, out, out_step);
}

// ---------------------------------------------------------------------------------------------------------------------
// Winograd: tiles of output pixels from patches of input pixels, transformed one dimension at a time.

constexpr int64_t kShares = 8;           // that tiles are divided into at most, each with a gradient, which are added up
constexpr int64_t kShare = 256;          // tiles in a share at least, since adding up costs time too,
constexpr int64_t kGradients = 1 << 24;  // and numbers in all those gradients at most, unless one alone has more
constexpr int64_t kApart = 16;           // numbers between tiles or products, that they do not all want the same place in the cache

// F(2×2, 3×3), which needs 2.25 times fewer multiplications, by interpolation at 0, ±1 and infinity.
template <class Number>
struct SmallTiles {
    typedef Number T;
    static constexpr int tile = 2, patch = 4, products = 4, weights = 4;
    static constexpr int64_t together = 48, chunk = 96;  // tiles whose transforms stay in the cache, also for gradients

    template <class V>
    static INLINE void transform_patch(const V (&d)[4], V (&v)[4]) {
        v[0] = d[0] - d[2], v[1] = d[1] + d[2], v[2] = d[2] - d[1], v[3] = d[1] - d[3];
    }

    template <class V>
    static INLINE void transform_weights(const V (&g)[3], V (&u)[4]) {
        u[0] = g[0], u[1] = (g[0] + g[1] + g[2]) / 2, u[2] = (g[0] - g[1] + g[2]) / 2, u[3] = g[2];
    }

    template <class V>
    static INLINE void transform_products(const V (&m)[4], V (&y)[2]) {
        y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
    }

    // The adjoints of the last two

    template <class V>
    static INLINE void weights_gradient(const V (&u)[4], V (&g)[3]) {
        g[0] = u[0] + (u[1] + u[2]) / 2, g[1] = (u[1] - u[2]) / 2, g[2] = (u[1] + u[2]) / 2 + u[3];
    }

    template <class V>
    static INLINE void products_gradient(const V (&y)[2], V (&m)[4]) {
        m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = V{} - y[1];
    }
};

// The values at a and −a of a polynomial with coefficients y
template <class V, class T>
INLINE void values_at(const V (&y)[4], T a, V* values) {
    const V even = y[0] + a * a * y[2], odd = a * (y[1] + a * a * y[3]);
    values[0] = even + odd, values[1] = even - odd;
}

// F(4×4, 3×3), which needs 4 times fewer multiplications, by interpolation at 0, ±a, ±b and infinity. With 5/8 and 3/2 it
// rounds 1.6 times as much as summing tap by tap; with the usual 1 and 2, 3.5 times (Barabasz et al. 2020 compare points).
template <class Number>
struct LargeTiles {
    typedef Number T;
    static constexpr int tile = 4, patch = 6, products = 6, weights = 6;
    static constexpr int64_t together = 32, chunk = 48;
    static constexpr T a = T(5) / 8, b = T(3) / 2, aa = a * a, bb = b * b;
    static constexpr T of_zero = 1 / (aa * bb), of_a = 1 / (2 * aa * (aa - bb)), of_b = 1 / (2 * bb * (bb - aa));

    template <class V>
    static INLINE void transform_patch(const V (&d)[6], V (&v)[6]) {
        const V even_a = d[4] - bb * d[2], odd_a = d[3] - bb * d[1], even_b = d[4] - aa * d[2], odd_b = d[3] - aa * d[1];
        v[0] = aa * bb * d[0] - (aa + bb) * d[2] + d[4];
        v[1] = even_a + a * odd_a, v[2] = even_a - a * odd_a;
        v[3] = even_b + b * odd_b, v[4] = even_b - b * odd_b;
        v[5] = aa * bb * d[1] - (aa + bb) * d[3] + d[5];
    }

    template <class V>
    static INLINE void transform_weights(const V (&g)[3], V (&u)[6]) {
        const V even_a = g[0] + aa * g[2], even_b = g[0] + bb * g[2];
        u[0] = of_zero * g[0];
        u[1] = of_a * (even_a + a * g[1]), u[2] = of_a * (even_a - a * g[1]);
        u[3] = of_b * (even_b + b * g[1]), u[4] = of_b * (even_b - b * g[1]);
        u[5] = g[2];
    }

    template <class V>
    static INLINE void transform_products(const V (&m)[6], V (&y)[4]) {
        const V even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
        y[0] = m[0] + even_a + even_b, y[1] = a * odd_a + b * odd_b;
        y[2] = aa * even_a + bb * even_b, y[3] = a * aa * odd_a + b * bb * odd_b + m[5];
    }

    template <class V>
    static INLINE void weights_gradient(const V (&u)[6], V (&g)[3]) {
        const V even_a = of_a * (u[1] + u[2]), even_b = of_b * (u[3] + u[4]);
        g[0] = of_zero * u[0] + even_a + even_b;
        g[1] = a * of_a * (u[1] - u[2]) + b * of_b * (u[3] - u[4]);
        g[2] = aa * even_a + bb * even_b + u[5];
    }

    template <class V>
    static INLINE void products_gradient(const V (&y)[4], V (&m)[6]) {
        m[0] = y[0];
        values_at(y, a, m + 1), values_at(y, b, m + 3);
        m[5] = y[3];
    }
};

// 3×3 kernels of stride 2: even pixels meet the outer two weights of a row, in F(4, 2) by interpolation at ±a, ±b and
// infinity; odd pixels meet the middle one, so that the last of the weights serves four products. 1.8 times fewer
// multiplications, rounded better than tap by tap.
template <class Number>
struct StridedTiles {
    typedef Number T;
    static constexpr int tile = 4, patch = 9, products = 9, weights = 6;
    static constexpr int64_t together = 16, chunk = 24;
    static constexpr T a = T(1) / 2, b = T(5) / 4, aa = a * a, bb = b * b;
    static constexpr T of_a = 1 / (2 * a * (aa - bb)), of_b = 1 / (2 * b * (bb - aa));

    template <class V>
    static INLINE void transform_patch(const V (&d)[9], V (&v)[9]) {
        const V low_a = d[4] - bb * d[0], high_a = d[6] - bb * d[2], low_b = d[4] - aa * d[0], high_b = d[6] - aa * d[2];
        v[0] = high_a + a * low_a, v[1] = high_a - a * low_a;
        v[2] = high_b + b * low_b, v[3] = high_b - b * low_b;
        v[4] = aa * bb * d[0] - (aa + bb) * d[4] + d[8];
        v[5] = d[1], v[6] = d[3], v[7] = d[5], v[8] = d[7];
    }

    template <class V>
    static INLINE void transform_weights(const V (&g)[3], V (&u)[6]) {
        u[0] = of_a * (a * g[2] + g[0]), u[1] = of_a * (a * g[2] - g[0]);
        u[2] = of_b * (b * g[2] + g[0]), u[3] = of_b * (b * g[2] - g[0]);
        u[4] = g[2], u[5] = g[1];
    }

    template <class V>
    static INLINE void transform_products(const V (&m)[9], V (&y)[4]) {
        const V even_a = m[0] + m[1], odd_a = m[0] - m[1], even_b = m[2] + m[3], odd_b = m[2] - m[3];
        y[0] = even_a + even_b + m[5], y[1] = a * odd_a + b * odd_b + m[6];
        y[2] = aa * even_a + bb * even_b + m[7], y[3] = a * aa * odd_a + b * bb * odd_b + m[4] + m[8];
    }

    template <class V>
    static INLINE void weights_gradient(const V (&u)[6], V (&g)[3]) {
        g[0] = of_a * (u[0] - u[1]) + of_b * (u[2] - u[3]);
        g[1] = u[5];
        g[2] = a * of_a * (u[0] + u[1]) + b * of_b * (u[2] + u[3]) + u[4];
    }

    template <class V>
    static INLINE void products_gradient(const V (&y)[4], V (&m)[9]) {
        values_at(y, a, m), values_at(y, b, m + 2);
        m[4] = y[3];
        m[5] = y[0], m[6] = y[1], m[7] = y[2], m[8] = y[3];
    }
};

// A transform of the columns of a block of numbers, then of its rows
template <int A, int B, class V, class Transform>
INLINE void both_ways(const V (&in)[A][A], V (&out)[B][B], Transform transform) {
    V half[B][A];
#pragma GCC unroll 9
    for (int x = 0; x < A; x++) {
        V column[A], made[B];
#pragma GCC unroll 9
        for (int y = 0; y < A; y++) column[y] = in[y][x];
        transform(column, made);
#pragma GCC unroll 9
        for (int y = 0; y < B; y++) half[y][x] = made[y];
    }
#pragma GCC unroll 9
    for (int y = 0; y < B; y++) transform(half[y], out[y]);
}

template <class Form>
struct Winograd {
    typedef typename Form::T T;
    typedef typename Simd<T>::type V;
    static constexpr int64_t lanes = Simd<T>::lanes, panel = kPanel<T>;
    static constexpr int kTile = Form::tile, kPatch = Form::patch, kProducts = Form::products, kWeights = Form::weights;
    static constexpr int products = kProducts * kProducts, weights = kWeights * kWeights;
    Conv p;
    int64_t tiles_x, tiles_y, tiles, panels, out_c;  // out_c: in whole panels

    explicit Winograd(const Conv& params) : p(params) {
        if (p.transposed) p.pad_y = 2 - p.pad_y, p.pad_x = 2 - p.pad_x;  // an ordinary one, with mirrored weights
        tiles_x = ceil_div(p.out_w, kTile), tiles_y = ceil_div(p.out_h, kTile), tiles = p.batch * tiles_x * tiles_y;
        panels = ceil_div(p.out_c, panel), out_c = panels * panel;
    }

    struct Place {
        int64_t image, y, x;  // of the first output pixel
    };
    Place place(int64_t tile) const {
        return {tile / (tiles_x * tiles_y), tile / tiles_x % tiles_y * kTile, tile % tiles_x * kTile};
    }

    // The weights of a product: along each dimension the last of them serve all products that remain.
    static int64_t weights_of_product(int64_t i) {
        return std::min<int64_t>(i / kProducts, kWeights - 1) * kWeights + std::min<int64_t>(i % kProducts, kWeights - 1);
    }

    int64_t prepared_size() const { return weights * out_c * p.in_c; }

    // w -> u [weights, panels, in_c, panel]
    void prepare(const T* w, T* u) const {
#pragma omp parallel for collapse(2) num_threads(p.threads) schedule(static)
        for (int64_t j = 0; j < panels; j++)
            for (int64_t c = 0; c < p.in_c; c++) {
                T taps[9][panel] = {};
                for (int64_t k = 0; k < std::min(panel, p.out_c - j * panel); k++)
                    for (int i = 0; i < 9; i++)
                        taps[p.transposed ? 8 - i : i][k] = w[(j * panel + k) * p.step_o + c * p.step_i + i];
                const int64_t step = panels * p.in_c * panel;
                T* to = u + (j * p.in_c + c) * panel;
                for (int64_t k = 0; k < panel; k += lanes) {
                    V g[3][3], enlarged[kWeights][kWeights];
                    for (int i = 0; i < 9; i++) g[i / 3][i % 3] = *(V*)&taps[i][k];
                    both_ways(g, enlarged, [](auto& from, auto& into) { Form::transform_weights(from, into); });
                    for (int i = 0; i < weights; i++) *(V*)(to + i * step + k) = enlarged[i / kWeights][i % kWeights];
                }
            }
    }

    template <class W>
    INLINE void patch(const T* const* pixels, T* v, int64_t step, int64_t c) const {
        W d[kPatch][kPatch], transformed[kProducts][kProducts];
#pragma GCC unroll 81
        for (int i = 0; i < kPatch * kPatch; i++) d[i / kPatch][i % kPatch] = load<W>(pixels[i] + c);
        both_ways(d, transformed, [](auto& from, auto& into) { Form::transform_patch(from, into); });
#pragma GCC unroll 81
        for (int i = 0; i < products; i++) store(v + i * step + c, transformed[i / kProducts][i % kProducts]);
    }

    // The patch of a tile -> v[products at a distance of step][in_c]
    void transform_patch(const T* image, int64_t tile, const T* zeros, T* v, int64_t step) const {
        const Place at = place(tile);
        const T* pixels[kPatch * kPatch];
        for (int i = 0; i < kPatch * kPatch; i++) {
            const int64_t y = at.y * p.stride - p.pad_y + i / kPatch, x = at.x * p.stride - p.pad_x + i % kPatch;
            const bool inside = y >= 0 && y < p.in_h && x >= 0 && x < p.in_w;
            pixels[i] = inside ? image + ((at.image * p.in_h + y) * p.in_w + x) * p.in_c : zeros;
        }
        int64_t c = 0;
        for (; c + lanes <= p.in_c; c += lanes) patch<V>(pixels, v, step, c);
        for (; c < p.in_c; c++) patch<T>(pixels, v, step, c);
    }

    // The pixels of a tile; null where they lie outside
    template <class P>
    void pixels_of_tile(P* image, int64_t tile, P* (&pixels)[kTile * kTile]) const {
        const Place at = place(tile);
        for (int i = 0; i < kTile * kTile; i++) {
            const int64_t y = at.y + i / kTile, x = at.x + i % kTile;
            const bool inside = y < p.out_h && x < p.out_w;
            pixels[i] = inside ? image + ((at.image * p.out_h + y) * p.out_w + x) * p.out_c : nullptr;
        }
    }

    template <class W>
    INLINE void write_tile(const T* m, int64_t step, T* const* pixels, int64_t k) const {
        W d[kProducts][kProducts], y[kTile][kTile];
#pragma GCC unroll 81
        for (int i = 0; i < products; i++) d[i / kProducts][i % kProducts] = load<W>(m + i * step + k);
        both_ways(d, y, [](auto& from, auto& into) { Form::transform_products(from, into); });
#pragma GCC unroll 81
        for (int i = 0; i < kTile * kTile; i++)
            if (pixels[i]) store(pixels[i] + k, y[i / kTile][i % kTile]);
    }

    // m[products][panel] -> channels of the tile's pixels
    void transform_output(const T* m, int64_t tile, int64_t j, T* out) const {
        T* pixels[kTile * kTile];
        pixels_of_tile(out + j * panel, tile, pixels);
        const int64_t width = std::min(panel, p.out_c - j * panel);
        int64_t k = 0;
        for (; k + lanes <= width; k += lanes) write_tile<V>(m, panel, pixels, k);
        for (; k < width; k++) write_tile<T>(m, panel, pixels, k);
    }

    void run(const T* in, const T* u, T* out) const {
        Buffer<T> zeros(p.in_c, 0);
        const int64_t blocks = ceil_div(ceil_div(tiles, Form::together), p.threads) * p.threads, size = ceil_div(tiles, blocks);
        const int64_t v_tile = products * p.in_c + kApart, m_tile = products * panel + kApart, u_step = p.in_c * panel;
#pragma omp parallel num_threads(p.threads)
        {
            Buffer<T> v(size * v_tile), m(size * m_tile);
#pragma omp for schedule(static)
            for (int64_t block = 0; block < blocks; block++) {
                const int64_t first = block * size, count = std::min(size, tiles - first);
                for (int64_t i = 0; i < count; i++) transform_patch(in, first + i, zeros.data(), v.data() + i * v_tile, p.in_c);
                for (int64_t j = 0; j < panels; j++) {
                    for (int64_t i = 0; i < products && count > 0; i++)
                        product<T, false>(count, v.data() + i * p.in_c, v_tile, 1, u + (weights_of_product(i) * panels + j) * u_step,
                                          p.in_c, m.data() + i * panel, m_tile);
                    for (int64_t i = 0; i < count; i++) transform_output(m.data() + i * m_tile, first + i, j, out);
                }
            }
        }
    }

    // Gradient of the weights

    template <class W>
    INLINE void read_tile(const T* const* pixels, T* q, int64_t step, int64_t k, int64_t to) const {
        W y[kTile][kTile], spread[kProducts][kProducts];
#pragma GCC unroll 81
        for (int i = 0; i < kTile * kTile; i++) y[i / kTile][i % kTile] = pixels[i] ? load<W>(pixels[i] + k) : W{};
        both_ways(y, spread, [](auto& from, auto& into) { Form::products_gradient(from, into); });
#pragma GCC unroll 81
        for (int i = 0; i < products; i++) store(q + i * step + to, spread[i / kProducts][i % kProducts]);
    }

    // Panels of a tile of the output's gradient -> q[products at a distance of step][panels at a distance of panel_step][panel]
    void transform_gradient(const T* grad, int64_t tile, T* q, int64_t step, int64_t panel_step, int64_t from, int64_t to) const {
        const T* pixels[kTile * kTile];
        pixels_of_tile(grad, tile, pixels);
        const int64_t end = std::min(to * panel, p.out_c);
        int64_t k = from * panel;
        for (; k + lanes <= end; k += lanes) read_tile<V>(pixels, q, step, k, k / panel * panel_step + k % panel);
        for (; k < end; k++) read_tile<T>(pixels, q, step, k, k / panel * panel_step + k % panel);
    }

    // du [weights, panels, in_c, panel] -> dw
    void weights_of(const T* du, T* dw) const {
#pragma omp parallel for collapse(2) num_threads(p.threads) schedule(static)
        for (int64_t j = 0; j < panels; j++)
            for (int64_t c = 0; c < p.in_c; c++) {
                T taps[9][panel];
                const int64_t step = panels * p.in_c * panel;
                const T* from = du + (j * p.in_c + c) * panel;
                for (int64_t k = 0; k < panel; k += lanes) {
                    V u[kWeights][kWeights], g[3][3];
                    for (int i = 0; i < weights; i++) u[i / kWeights][i % kWeights] = *(const V*)(from + i * step + k);
                    both_ways(u, g, [](auto& wide, auto& into) { Form::weights_gradient(wide, into); });
                    for (int i = 0; i < 9; i++) *(V*)&taps[i][k] = g[i / 3][i % 3];
                }
                for (int64_t k = 0; k < std::min(panel, p.out_c - j * panel); k++)
                    for (int i = 0; i < 9; i++) dw[(j * panel + k) * p.step_o + c * p.step_i + i] = taps[i][k];
            }
    }

    void weight_gradient(const T* in, const T* grad, T* dw) const {
        const int64_t size = weights * out_c * p.in_c, most = std::min(kShares, std::max<int64_t>(kGradients / size, 1));
        const int64_t share = ceil_div(tiles, std::clamp<int64_t>(tiles / kShare, 1, most)), shares = ceil_div(tiles, share);
        const int64_t groups = std::min(panels, ceil_div(p.threads, shares));  // of panels, for threads that have no share
        const int64_t v_step = Form::chunk * p.in_c + kApart, q_step = Form::chunk * out_c + kApart;
        Buffer<T> du(shares * size), zeros(p.in_c, 0);
#pragma omp parallel num_threads(p.threads)
        {
            Buffer<T> v(products * v_step), q(products * q_step);
            if (out_c > p.out_c) std::fill(q.begin(), q.end(), T(0));  // channels that only fill up a panel
#pragma omp for collapse(2) schedule(static)
            for (int64_t s = 0; s < shares; s++)
                for (int64_t group = 0; group < groups; group++) {
                    const int64_t from = panels * group / groups, to = panels * (group + 1) / groups;
                    for (int64_t first = s * share; first < std::min((s + 1) * share, tiles); first += Form::chunk) {
                        const int64_t count = std::min({Form::chunk, (s + 1) * share - first, tiles - first});
                        for (int64_t i = 0; i < count; i++) {
                            transform_patch(in, first + i, zeros.data(), v.data() + i * p.in_c, v_step);
                            transform_gradient(grad, first + i, q.data() + i * panel, q_step, Form::chunk * panel, from, to);
                        }
                        for (int64_t i = 0; i < products; i++) {
                            const bool fresh = first == s * share && i / kProducts < kWeights && i % kProducts < kWeights;
                            const auto add = fresh ? product<T, false> : product<T, true>;
                            for (int64_t j = from; j < to; j++)
                                add(p.in_c, v.data() + i * v_step, 1, p.in_c, q.data() + i * q_step + j * Form::chunk * panel, count,
                                    du.data() + s * size + (weights_of_product(i) * panels + j) * p.in_c * panel, panel);
                        }
                    }
                }
#pragma omp for simd schedule(static)
            for (int64_t i = 0; i < size; i++)
                for (int64_t s = 1; s < shares; s++) du[i] += du[s * size + i];
        }
        weights_of(du.data(), dw);
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// What has no such form

template <class T>
struct Direct {
    typedef typename Simd<T>::type V;
    static constexpr int64_t lanes = Simd<T>::lanes, panel = kPanel<T>;
    Conv p;
    int64_t taps, panels;

    explicit Direct(const Conv& params) : p(params), taps(p.kernel_h * p.kernel_w), panels(ceil_div(p.out_c, panel)) {}

    int64_t prepared_size() const { return panels * taps * p.in_c * panel; }

    // w -> packed [panels, taps, in_c, panel]
    void prepare(const T* w, T* packed) const {
#pragma omp parallel for collapse(2) num_threads(p.threads) schedule(static)
        for (int64_t j = 0; j < panels; j++)
            for (int64_t tap = 0; tap < taps; tap++)
                for (int64_t c = 0; c < p.in_c; c++)
                    for (int64_t k = 0; k < panel; k++) {
                        const int64_t o = j * panel + k;
                        packed[((j * taps + tap) * p.in_c + c) * panel + k] = o < p.out_c ? w[o * p.step_o + c * p.step_i + tap] : T(0);
                    }
    }

    // The rows (or columns) of the kernel that reach output `out`, and the inputs that they read there.
    struct Reach {
        int64_t tap, in;
    };
    std::vector<Reach> reach(int64_t out, int64_t kernel, int64_t pad, int64_t size) const {
        std::vector<Reach> found;
        for (int64_t tap = 0; tap < kernel; tap++) {
            const int64_t numerator = p.transposed ? out + pad - tap : out * p.stride + tap - pad;
            if (p.transposed && (numerator % p.stride || numerator < 0)) continue;
            const int64_t in = p.transposed ? numerator / p.stride : numerator;
            if (size < 0 || (in >= 0 && in < size)) found.push_back({tap, in});
        }
        return found;
    }

    // R output pixels of a row, `every` pixels apart, from column x on; their inputs are `step` pixels apart.
    template <int R>
    void pixels(const T* image, const T* w, const T* zeros, T* out_row, int64_t j, int64_t x, int64_t every, int64_t step,
                const std::vector<Reach>& rows) const {
        V sum[R][2] = {};
        for (const Reach& row : rows)
            for (int64_t tap = 0; tap < p.kernel_w; tap++) {
                const int64_t numerator = p.transposed ? x + p.pad_x - tap : x * p.stride + tap - p.pad_x;
                if (p.transposed && ((numerator % p.stride) + p.stride) % p.stride) continue;
                const int64_t first = p.transposed ? numerator / p.stride : numerator;
                const T* from[R];
                for (int r = 0; r < R; r++) {
                    const int64_t ix = first + r * step;
                    from[r] = ix >= 0 && ix < p.in_w ? image + (row.in * p.in_w + ix) * p.in_c : zeros;
                }
                multiply<T, R>(from, 1, w + ((j * taps + row.tap * p.kernel_w) + tap) * p.in_c * panel, panel, p.in_c, sum);
            }
        for (int r = 0; r < R; r++) {
            T* to = out_row + (x + r * every) * p.out_c + j * panel;
            if ((j + 1) * panel <= p.out_c) {
                *(V*)to = sum[r][0], *(V*)(to + lanes) = sum[r][1];
            } else {
                std::memcpy(to, &sum[r][0], sizeof(T) * (p.out_c - j * panel));
            }
        }
    }

    template <int R>
    void last_pixels(int64_t count, const T* image, const T* w, const T* zeros, T* out_row, int64_t j, int64_t x, int64_t every,
                     int64_t step, const std::vector<Reach>& rows) const {
        if (count == R) return pixels<R>(image, w, zeros, out_row, j, x, every, step, rows);
        if constexpr (R > 1) last_pixels<R - 1>(count, image, w, zeros, out_row, j, x, every, step, rows);
    }

    void run(const T* in, const T* packed, T* out) const {
        Buffer<T> zeros(p.in_c, 0);
        const int64_t every = p.transposed ? p.stride : 1, step = p.transposed ? 1 : p.stride;
        const int64_t group = std::max<int64_t>(1, std::min(64 / p.out_w, ceil_div(p.batch * p.out_h, p.threads)));
#pragma omp parallel for num_threads(p.threads) schedule(static)
        for (int64_t start = 0; start < p.batch * p.out_h; start += group)  // rows that share a panel in the cache
            for (int64_t j = 0; j < panels; j++)
                for (int64_t row = start; row < std::min(start + group, p.batch * p.out_h); row++) {
                    const T* image = in + row / p.out_h * p.in_h * p.in_w * p.in_c;
                    T* out_row = out + row * p.out_w * p.out_c;
                    const std::vector<Reach> rows = reach(row % p.out_h, p.kernel_h, p.pad_y, p.in_h);
                    for (int64_t phase = 0; phase < every; phase++) {
                        int64_t x = phase;
                        for (; x + (kRows - 1) * every < p.out_w; x += kRows * every)
                            pixels<kRows>(image, packed, zeros.data(), out_row, j, x, every, step, rows);
                        if (x < p.out_w)
                            last_pixels<kRows - 1>(ceil_div(p.out_w - x, every), image, packed, zeros.data(), out_row, j, x,
                                                   every, step, rows);
                    }
                }
    }

    // dw[o, c, tap] = sum over output pixels of grad[pixel, o] * in[pixel * stride + tap - pad, c]
    void weight_gradient(const T* in, const T* grad, T* dw) const {
        Buffer<T> sums(panels * taps * p.in_c * panel, 0);
#pragma omp parallel num_threads(p.threads)
        {
            Buffer<T> packed(p.out_w * panel, 0);
            const int64_t tasks = panels * taps, workers = team_size(), worker = team_member();
            const int64_t first = tasks * worker / workers, last = tasks * (worker + 1) / workers;
            for (int64_t row = 0; row < p.batch * p.out_h && first < last; row++)
                for (int64_t j = first / taps; j <= (last - 1) / taps; j++) {
                    pack_gradient(grad + row * p.out_w * p.out_c, j, packed.data());
                    for (int64_t tap = std::max<int64_t>(first - j * taps, 0); tap < std::min(last - j * taps, taps); tap++)
                        add_row(in, packed.data(), row, tap, sums.data() + (j * taps + tap) * p.in_c * panel);
                }
        }
        for (int64_t o = 0; o < p.out_c; o++)
            for (int64_t c = 0; c < p.in_c; c++)
                for (int64_t tap = 0; tap < taps; tap++)
                    dw[o * p.step_o + c * p.step_i + tap] = sums[((o / panel * taps + tap) * p.in_c + c) * panel + o % panel];
    }

    static int64_t team_size() {
#ifdef _OPENMP
        return omp_get_num_threads();
#else
        return 1;
#endif
    }
    static int64_t team_member() {
#ifdef _OPENMP
        return omp_get_thread_num();
#else
        return 0;
#endif
    }

    void pack_gradient(const T* row, int64_t j, T* packed) const {
        const int64_t width = std::min(panel, p.out_c - j * panel);
        for (int64_t x = 0; x < p.out_w; x++) std::memcpy(packed + x * panel, row + x * p.out_c + j * panel, sizeof(T) * width);
    }

    void add_row(const T* in, const T* packed, int64_t row, int64_t tap, T* sum) const {
        const int64_t y = row % p.out_h * p.stride + tap / p.kernel_w - p.pad_y, shift = tap % p.kernel_w - p.pad_x;
        if (y < 0 || y >= p.in_h) return;
        const int64_t x0 = shift < 0 ? ceil_div(-shift, p.stride) : 0;  // output columns whose input is inside
        const int64_t x1 = p.in_w > shift ? std::min(p.out_w, (p.in_w - 1 - shift) / p.stride + 1) : 0;
        if (x0 >= x1) return;
        const T* from = in + ((row / p.out_h * p.in_h + y) * p.in_w + x0 * p.stride + shift) * p.in_c;
        product<T, true>(p.in_c, from, 1, p.stride * p.in_c, packed + x0 * panel, x1 - x0, sum, panel);
    }
};

// The way to compute it, as an object for `job`. It does not depend on the batch: nor does any number of the result, then.
template <class T, class Job>
auto by_shape(const Conv& p, Job job) {
    const bool ordinary = p.stride == 1 && p.pad_y <= 2 && p.pad_x <= 2, strided = p.stride == 2 && !p.transposed;
    const bool large = p.out_h * p.out_w >= p.in_c;  // images that outweigh the weights, which grow more in this form
    if (p.kernel_h == 3 && p.kernel_w == 3 && ordinary)
        return large ? job(Winograd<LargeTiles<T>>(p)) : job(Winograd<SmallTiles<T>>(p));
    if (p.kernel_h == 3 && p.kernel_w == 3 && strided && large) return job(Winograd<StridedTiles<T>>(p));
    return job(Direct<T>(p));
}

template <class T>
int64_t prepared_size(const Conv& p) {
    return by_shape<T>(p, [](const auto& form) { return form.prepared_size(); });
}

template <class T>
void prepare(const T* w, T* prepared, const Conv& p) {
    by_shape<T>(p, [=](const auto& form) { form.prepare(w, prepared); });
}

template <class T>
void conv2d(const T* in, const T* prepared, T* out, const Conv& p) {
    by_shape<T>(p, [=](const auto& form) { form.run(in, prepared, out); });
}

template <class T>
void weight_gradient(const T* in, const T* grad, T* dw, const Conv& p) {
    by_shape<T>(p, [=](const auto& form) { form.weight_gradient(in, grad, dw); });
}

}  // namespace

// Images are [batch, height, width, channels]; weights [out_c, in_c, kernel_h, kernel_w] by the steps of `p`, taps adjacent.
// `conv2d_prepare` lays them out as `conv2d` reads them, in `conv2d_prepared_size` numbers; how depends on the sizes of images, not on the batch.
extern "C" int64_t conv2d_prepared_size_float(const Conv* p) { return prepared_size<float>(*p); }
extern "C" int64_t conv2d_prepared_size_double(const Conv* p) { return prepared_size<double>(*p); }
extern "C" void conv2d_prepare_float(const float* w, float* prepared, const Conv* p) { prepare(w, prepared, *p); }
extern "C" void conv2d_prepare_double(const double* w, double* prepared, const Conv* p) { prepare(w, prepared, *p); }
extern "C" void conv2d_float(const float* in, const float* prepared, float* out, const Conv* p) { conv2d(in, prepared, out, *p); }
extern "C" void conv2d_double(const double* in, const double* prepared, double* out, const Conv* p) { conv2d(in, prepared, out, *p); }
// The gradient of the weights of an ordinary (not transposed) convolution.
extern "C" void conv2d_weight_float(const float* in, const float* grad, float* dw, const Conv* p) { weight_gradient(in, grad, dw, *p); }
extern "C" void conv2d_weight_double(const double* in, const double* grad, double* dw, const Conv* p) { weight_gradient(in, grad, dw, *p); }
