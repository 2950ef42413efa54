// Convolutions of channels-last images on the CPU, their adjoints, and their gradients with respect to weights.
//
// Everything is one small matrix product in registers (`multiply`): R rows of pixels times a panel of weights of
// 2 vectors. 3×3 kernels of stride 1 run in Winograd's form F(2×2, 3×3) (Lavin and Gray 2016), which needs 2.25 times
// fewer multiplications: 4×4 patches, transformed, become 16 independent matrix products over channels. All other
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
// Winograd's F(2×2, 3×3). The three transforms are those of Lavin and Gray, one dimension at a time.

constexpr int64_t kTiles = 48;  // of 2×2 output pixels, whose transforms stay in the cache
constexpr int64_t kChunk = 96;  // of them in a step of the weights' gradient
constexpr int64_t kShares = 8;  // of the tiles, each with a gradient of its own, which are added up in the end
constexpr int64_t kApart = 16;  // numbers between the 16 transforms, that they do not all want the same place in the cache

// 4 pixels of a patch -> 4 numbers
template <class V>
INLINE void transform_input(V& a, V& b, V& c, V& d) {
    const V first = a - c, second = b + c, third = c - b, fourth = b - d;
    a = first, b = second, c = third, d = fourth;
}

template <class T>
struct Winograd {
    typedef typename Simd<T>::type V;
    static constexpr int64_t lanes = Simd<T>::lanes, panel = kPanel<T>;
    Conv p;
    int64_t tiles_x, tiles_y, tiles, panels, out_c;  // out_c: in whole panels

    explicit Winograd(const Conv& params) : p(params) {
        if (p.transposed) p.pad_y = 2 - p.pad_y, p.pad_x = 2 - p.pad_x;  // an ordinary one, with mirrored weights
        tiles_x = ceil_div(p.out_w, 2), tiles_y = ceil_div(p.out_h, 2), tiles = p.batch * tiles_x * tiles_y;
        panels = ceil_div(p.out_c, panel), out_c = panels * panel;
    }

    struct Place {
        int64_t image, y, x;  // of the first output pixel
    };
    Place place(int64_t tile) const {
        return {tile / (tiles_x * tiles_y), tile / tiles_x % tiles_y * 2, tile % tiles_x * 2};
    }

    int64_t prepared_size() const { return 16 * out_c * p.in_c; }

    // w -> u [16, panels, in_c, panel]
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
                    V g[4][3], row[4];
                    for (int x = 0; x < 3; x++)
                        enlarge(*(V*)&taps[x][k], *(V*)&taps[3 + x][k], *(V*)&taps[6 + x][k], g[0][x], g[1][x], g[2][x], g[3][x]);
                    for (int y = 0; y < 4; y++) {
                        enlarge(g[y][0], g[y][1], g[y][2], row[0], row[1], row[2], row[3]);
                        for (int x = 0; x < 4; x++) *(V*)(to + (y * 4 + x) * step + k) = row[x];
                    }
                }
            }
    }

    // 3 weights -> 4 numbers
    static INLINE void enlarge(V a, V b, V c, V& first, V& second, V& third, V& fourth) {
        first = a, second = (a + b + c) / 2, third = (a - b + c) / 2, fourth = c;
    }

    // The adjoint of `enlarge`
    static INLINE void reduce(V first, V second, V third, V fourth, V& a, V& b, V& c) {
        a = first + (second + third) / 2, b = (second - third) / 2, c = (second + third) / 2 + fourth;
    }

    template <class W>
    INLINE void patch(const T* const* pixels, T* v, int64_t step, int64_t c) const {
        W d[4][4];
        for (int i = 0; i < 16; i++) d[i / 4][i % 4] = *(const W*)(pixels[i] + c);
        for (int x = 0; x < 4; x++) transform_input(d[0][x], d[1][x], d[2][x], d[3][x]);
        for (int y = 0; y < 4; y++) transform_input(d[y][0], d[y][1], d[y][2], d[y][3]);
        for (int i = 0; i < 16; i++) *(W*)(v + i * step + c) = d[i / 4][i % 4];
    }

    // The patch of a tile -> v[16 at a distance of step][in_c]
    void transform_patch(const T* image, int64_t tile, const T* zeros, T* v, int64_t step) const {
        const Place at = place(tile);
        const T* pixels[16];
        for (int i = 0; i < 16; i++) {
            const int64_t y = at.y - p.pad_y + i / 4, x = at.x - p.pad_x + i % 4;
            const bool inside = y >= 0 && y < p.in_h && x >= 0 && x < p.in_w;
            pixels[i] = inside ? image + ((at.image * p.in_h + y) * p.in_w + x) * p.in_c : zeros;
        }
        int64_t c = 0;
        for (; c + lanes <= p.in_c; c += lanes) patch<V>(pixels, v, step, c);
        for (; c < p.in_c; c++) patch<T>(pixels, v, step, c);
    }

    template <class W>
    INLINE void pixels_of_tile(const T* m, int64_t step, T* const* pixels, int64_t k) const {
        W half[2][4];
        for (int x = 0; x < 4; x++) {
            const W a = *(const W*)(m + x * step + k), b = *(const W*)(m + (4 + x) * step + k);
            const W c = *(const W*)(m + (8 + x) * step + k), d = *(const W*)(m + (12 + x) * step + k);
            half[0][x] = a + b + c, half[1][x] = b - c - d;
        }
        for (int y = 0; y < 2; y++) {
            if (pixels[y * 2]) *(W*)(pixels[y * 2] + k) = half[y][0] + half[y][1] + half[y][2];
            if (pixels[y * 2 + 1]) *(W*)(pixels[y * 2 + 1] + k) = half[y][1] - half[y][2] - half[y][3];
        }
    }

    // m[16 at a distance of step][out_c] -> the tile's pixels
    void transform_output(const T* m, int64_t step, int64_t tile, T* out) const {
        const Place at = place(tile);
        T* pixels[4];
        for (int i = 0; i < 4; i++) {
            const int64_t y = at.y + i / 2, x = at.x + i % 2;
            pixels[i] = y < p.out_h && x < p.out_w ? out + ((at.image * p.out_h + y) * p.out_w + x) * p.out_c : nullptr;
        }
        int64_t k = 0;
        for (; k + lanes <= p.out_c; k += lanes) pixels_of_tile<V>(m, step, pixels, k);
        for (; k < p.out_c; k++) pixels_of_tile<T>(m, step, pixels, k);
    }

    void run(const T* in, const T* u, T* out) const {
        Buffer<T> zeros(p.in_c);
        const int64_t blocks = ceil_div(ceil_div(tiles, kTiles), p.threads) * p.threads, size = ceil_div(tiles, blocks);
#pragma omp parallel num_threads(p.threads)
        {
            const int64_t v_step = size * p.in_c + kApart, m_step = size * out_c + kApart;
            Buffer<T> v(16 * v_step), m(16 * m_step);
#pragma omp for schedule(static)
            for (int64_t block = 0; block < blocks; block++) {
                const int64_t first = block * size, count = std::min(size, tiles - first);
                for (int64_t i = 0; i < count; i++)
                    transform_patch(in, first + i, zeros.data(), v.data() + i * p.in_c, v_step);
                for (int64_t i = 0; i < 16 && count > 0; i++)
                    for (int64_t j = 0; j < panels; j++)
                        product<T, false>(count, v.data() + i * v_step, p.in_c, 1, u + (i * panels + j) * p.in_c * panel, p.in_c,
                                          m.data() + i * m_step + j * panel, out_c);
                for (int64_t i = 0; i < count; i++) transform_output(m.data() + i * out_c, m_step, first + i, out);
            }
        }
    }

    // Gradient of the weights

    template <class W>
    INLINE void spread(const T* const* pixels, T* q, int64_t step, int64_t k, int64_t to) const {
        const W zero = {};
        W half[4][2];
        for (int x = 0; x < 2; x++) {
            const W a = pixels[x] ? *(const W*)(pixels[x] + k) : zero, b = pixels[2 + x] ? *(const W*)(pixels[2 + x] + k) : zero;
            half[0][x] = a, half[1][x] = a + b, half[2][x] = a - b, half[3][x] = zero - b;
        }
        for (int y = 0; y < 4; y++) {
            const W a = half[y][0], b = half[y][1], row[4] = {a, a + b, a - b, zero - b};
            for (int x = 0; x < 4; x++) *(W*)(q + (y * 4 + x) * step + to) = row[x];
        }
    }

    // A tile of the output's gradient -> q[16 at a distance of step][panels at a distance of panel_step][panel]
    void transform_gradient(const T* grad, int64_t tile, T* q, int64_t step, int64_t panel_step) const {
        const Place at = place(tile);
        const T* pixels[4];
        for (int i = 0; i < 4; i++) {
            const int64_t y = at.y + i / 2, x = at.x + i % 2;
            pixels[i] = y < p.out_h && x < p.out_w ? grad + ((at.image * p.out_h + y) * p.out_w + x) * p.out_c : nullptr;
        }
        int64_t k = 0;
        for (; k + lanes <= p.out_c; k += lanes) spread<V>(pixels, q, step, k, k / panel * panel_step + k % panel);
        for (; k < p.out_c; k++) spread<T>(pixels, q, step, k, k / panel * panel_step + k % panel);
    }

    // du [16, panels, in_c, panel] -> dw
    void weights_of(const T* du, T* dw) const {
#pragma omp parallel for collapse(2) num_threads(p.threads) schedule(static)
        for (int64_t j = 0; j < panels; j++)
            for (int64_t c = 0; c < p.in_c; c++) {
                T taps[9][panel];
                const int64_t step = panels * p.in_c * panel;
                const T* from = du + (j * p.in_c + c) * panel;
                for (int64_t k = 0; k < panel; k += lanes) {
                    V g[4][3];
                    for (int y = 0; y < 4; y++) {
                        V row[4];
                        for (int x = 0; x < 4; x++) row[x] = *(const V*)(from + (y * 4 + x) * step + k);
                        reduce(row[0], row[1], row[2], row[3], g[y][0], g[y][1], g[y][2]);
                    }
                    for (int x = 0; x < 3; x++)
                        reduce(g[0][x], g[1][x], g[2][x], g[3][x], *(V*)&taps[x][k], *(V*)&taps[3 + x][k], *(V*)&taps[6 + x][k]);
                }
                for (int64_t k = 0; k < std::min(panel, p.out_c - j * panel); k++)
                    for (int i = 0; i < 9; i++) dw[(j * panel + k) * p.step_o + c * p.step_i + i] = taps[i][k];
            }
    }

    void weight_gradient(const T* in, const T* grad, T* dw) const {
        const int64_t shares = std::max<int64_t>(1, std::min(tiles / kChunk, kShares)), share = ceil_div(tiles, shares);
        const int64_t v_step = kChunk * p.in_c + kApart, q_step = kChunk * out_c + kApart, size = 16 * out_c * p.in_c;
        Buffer<T> du(shares * size), zeros(p.in_c);
#pragma omp parallel num_threads(p.threads)
        {
            Buffer<T> v(16 * v_step), q(16 * q_step);
#pragma omp for schedule(static)
            for (int64_t s = 0; s < shares; s++)
                for (int64_t first = s * share; first < std::min((s + 1) * share, tiles); first += kChunk) {
                    const int64_t count = std::min({kChunk, (s + 1) * share - first, tiles - first});
                    for (int64_t i = 0; i < count; i++) {
                        transform_patch(in, first + i, zeros.data(), v.data() + i * p.in_c, v_step);
                        transform_gradient(grad, first + i, q.data() + i * panel, q_step, kChunk * panel);
                    }
                    for (int64_t i = 0; i < 16; i++)
                        for (int64_t j = 0; j < panels; j++)
                            product<T, true>(p.in_c, v.data() + i * v_step, 1, p.in_c, q.data() + i * q_step + j * kChunk * panel,
                                             count, du.data() + s * size + (i * panels + j) * p.in_c * panel, panel);
                }
#pragma omp for simd schedule(static)
            for (int64_t i = 0; i < size; i++)
                for (int64_t s = 1; s < shares; s++) du[i] += du[s * size + i];
        }
        weights_of(du.data(), dw);
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Any other kernel and stride

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
        Buffer<T> zeros(p.in_c);
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
        Buffer<T> sums(panels * taps * p.in_c * panel);
#pragma omp parallel num_threads(p.threads)
        {
            Buffer<T> packed(p.out_w * panel);
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

bool winograd(const Conv& p) {
    return p.kernel_h == 3 && p.kernel_w == 3 && p.stride == 1 && p.pad_y <= 2 && p.pad_x <= 2;
}

template <class T>
int64_t prepared_size(const Conv& p) {
    return winograd(p) ? Winograd<T>(p).prepared_size() : Direct<T>(p).prepared_size();
}

template <class T>
void prepare(const T* w, T* prepared, const Conv& p) {
    if (winograd(p)) Winograd<T>(p).prepare(w, prepared);
    else Direct<T>(p).prepare(w, prepared);
}

template <class T>
void conv2d(const T* in, const T* prepared, T* out, const Conv& p) {
    if (winograd(p)) Winograd<T>(p).run(in, prepared, out);
    else Direct<T>(p).run(in, prepared, out);
}

template <class T>
void weight_gradient(const T* in, const T* grad, T* dw, const Conv& p) {
    if (winograd(p)) Winograd<T>(p).weight_gradient(in, grad, dw);
    else Direct<T>(p).weight_gradient(in, grad, dw);
}

}  // namespace

// Images are [batch, height, width, channels]; weights [out_c, in_c, kernel_h, kernel_w] by the steps of `p`, taps adjacent.
// `conv2d_prepare` lays them out as `conv2d` reads them, in `conv2d_prepared_size` numbers; sizes of images do not matter to it.
extern "C" int64_t conv2d_prepared_size_float(const Conv* p) { return prepared_size<float>(*p); }
extern "C" int64_t conv2d_prepared_size_double(const Conv* p) { return prepared_size<double>(*p); }
extern "C" void conv2d_prepare_float(const float* w, float* prepared, const Conv* p) { prepare(w, prepared, *p); }
extern "C" void conv2d_prepare_double(const double* w, double* prepared, const Conv* p) { prepare(w, prepared, *p); }
extern "C" void conv2d_float(const float* in, const float* prepared, float* out, const Conv* p) { conv2d(in, prepared, out, *p); }
extern "C" void conv2d_double(const double* in, const double* prepared, double* out, const Conv* p) { conv2d(in, prepared, out, *p); }
// The gradient of the weights of an ordinary (not transposed) convolution.
extern "C" void conv2d_weight_float(const float* in, const float* grad, float* dw, const Conv* p) { weight_gradient(in, grad, dw, *p); }
extern "C" void conv2d_weight_double(const double* in, const double* grad, double* dw, const Conv* p) { weight_gradient(in, grad, dw, *p); }
