// bias_act on the CPU: threads over rows, vectors within them.
#include "bias_act.h"

namespace {

// Elements of a dense tensor seen as [rows, width]: the bias is one number a row, or one a column.
struct Layout {
    int64_t rows, width, channels;
    bool bias_in_row;  // columns are the channels
};

template <class T, int ACT>
void forward(const T* x, const T* b, T* y, Layout s, BiasAct<T> op, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < s.rows; row++) {
        const T* in = x + row * s.width;
        T* out = y + row * s.width;
        if (b && s.bias_in_row) {
#pragma omp simd
            for (int64_t i = 0; i < s.width; i++) out[i] = op.template forward<ACT>(in[i] + b[i]);
        } else {
            const T bias = b ? b[row % s.channels] : T(0);
#pragma omp simd
            for (int64_t i = 0; i < s.width; i++) out[i] = op.template forward<ACT>(in[i] + bias);
        }
    }
}

// out = g * phi^(ORDER)(saved), times h where it is given. `sums` [rows]: the sum of each row of out, in double.
template <class T, int ACT, int ORDER>
void backward(const T* g, const T* h, const T* saved, T* out, double* sums, Layout s, BiasAct<T> op, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < s.rows; row++) {
        const int64_t start = row * s.width;
        if (h) {
#pragma omp simd
            for (int64_t i = start; i < start + s.width; i++)
                out[i] = g[i] * h[i] * op.template derivative<ACT, ORDER>(saved[i]);
        } else {
#pragma omp simd
            for (int64_t i = start; i < start + s.width; i++) out[i] = g[i] * op.template derivative<ACT, ORDER>(saved[i]);
        }
        if (sums) {
            double total = 0;
            for (int64_t i = start; i < start + s.width; i += 1024) {  // in float within a block, in double between
                T block = 0;
                const int64_t end = i + 1024 < start + s.width ? i + 1024 : start + s.width;
#pragma omp simd reduction(+ : block)
                for (int64_t j = i; j < end; j++) block += out[j];
                total += block;
            }
            sums[row] = total;
        }
    }
}

template <class T, int ACT>
void run(int order, const T* x, const T* b, const T* h, const T* saved, T* out, double* sums, Layout s, BiasAct<T> op, int threads) {
    if (order == 0) forward<T, ACT>(x, b, out, s, op, threads);
    if (order == 1) backward<T, ACT, 1>(x, h, saved, out, sums, s, op, threads);
    if (order == 2) backward<T, ACT, 2>(x, h, saved, out, sums, s, op, threads);
}

template <class T>
void dispatch(int act, int order, const T* x, const T* b, const T* h, const T* saved, T* out, double* sums, Layout s, BiasAct<T> op, int threads) {
    switch (act) {
        case LINEAR: return run<T, LINEAR>(order, x, b, h, saved, out, sums, s, op, threads);
        case RELU: return run<T, RELU>(order, x, b, h, saved, out, sums, s, op, threads);
        case LRELU: return run<T, LRELU>(order, x, b, h, saved, out, sums, s, op, threads);
        case TANH: return run<T, TANH>(order, x, b, h, saved, out, sums, s, op, threads);
        case SIGMOID: return run<T, SIGMOID>(order, x, b, h, saved, out, sums, s, op, threads);
        case ELU: return run<T, ELU>(order, x, b, h, saved, out, sums, s, op, threads);
        case SELU: return run<T, SELU>(order, x, b, h, saved, out, sums, s, op, threads);
        case SOFTPLUS: return run<T, SOFTPLUS>(order, x, b, h, saved, out, sums, s, op, threads);
        case SWISH: return run<T, SWISH>(order, x, b, h, saved, out, sums, s, op, threads);
    }
}

}  // namespace

// order 0: out = phi(x + b). Order 1, 2: out = x * h * phi'(saved), phi''(saved), with the sums of its rows.
#define EXPORT(NAME, T)                                                                                               \
    extern "C" void NAME(int act, int order, const T* x, const T* b, const T* h, const T* saved, T* out, double* sums,  \
                         int64_t rows, int64_t width, int64_t channels, int bias_in_row, double alpha, double gain,     \
                         double clamp, int threads) {                                                                 \
        dispatch<T>(act, order, x, b, h, saved, out, sums, {rows, width, channels, bias_in_row != 0},                  \
                    {T(alpha), T(gain), T(clamp)}, threads);                                                          \
    }
EXPORT(bias_act_float, float)
EXPORT(bias_act_double, double)
