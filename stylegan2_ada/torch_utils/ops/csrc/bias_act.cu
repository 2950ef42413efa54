// bias_act on CUDA: one thread an element, the element's arithmetic is that of the CPU.
#include "bias_act.h"
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace {

template <class T> struct Compute { typedef T type; };
template <> struct Compute<__half> { typedef float type; };

template <class T, int ACT, int ORDER>
__global__ void kernel(const T* x, const T* b, const T* h, const T* saved, T* out, int64_t size, int64_t step,
                       int64_t channels, BiasAct<typename Compute<T>::type> op) {
    typedef typename Compute<T>::type C;
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x) {
        if (ORDER == 0) {
            const C bias = b ? C(b[i / step % channels]) : C(0);
            out[i] = T(op.template forward<ACT>(C(x[i]) + bias));
        } else {
            const C g = C(x[i]) * (h ? C(h[i]) : C(1));
            out[i] = T(g * op.template derivative<ACT, ORDER>(C(saved[i])));
        }
    }
}

template <class T, int ACT>
void launch(int order, const T* x, const T* b, const T* h, const T* saved, T* out, int64_t size, int64_t step,
            int64_t channels, BiasAct<typename Compute<T>::type> op, cudaStream_t stream) {
    const int threads = 256;
    const int64_t wanted = (size + threads - 1) / threads;
    const int blocks = int(wanted < 65536 ? wanted : 65536);
    if (order == 0) kernel<T, ACT, 0><<<blocks, threads, 0, stream>>>(x, b, h, saved, out, size, step, channels, op);
    if (order == 1) kernel<T, ACT, 1><<<blocks, threads, 0, stream>>>(x, b, h, saved, out, size, step, channels, op);
    if (order == 2) kernel<T, ACT, 2><<<blocks, threads, 0, stream>>>(x, b, h, saved, out, size, step, channels, op);
}

template <class T>
int dispatch(int act, int order, const T* x, const T* b, const T* h, const T* saved, T* out, int64_t size, int64_t step,
             int64_t channels, double alpha, double gain, double clamp, void* stream_pointer) {
    typedef typename Compute<T>::type C;
    const BiasAct<C> op = {C(alpha), C(gain), C(clamp)};
    cudaStream_t stream = static_cast<cudaStream_t>(stream_pointer);
    switch (act) {
        case LINEAR: launch<T, LINEAR>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case RELU: launch<T, RELU>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case LRELU: launch<T, LRELU>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case TANH: launch<T, TANH>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case SIGMOID: launch<T, SIGMOID>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case ELU: launch<T, ELU>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case SELU: launch<T, SELU>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case SOFTPLUS: launch<T, SOFTPLUS>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
        case SWISH: launch<T, SWISH>(order, x, b, h, saved, out, size, step, channels, op, stream); break;
    }
    return int(cudaGetLastError());
}

}  // namespace

// Pointers on the device; the bias of element i is b[i / step % channels]. Returns a cudaError_t.
#define EXPORT(NAME, T)                                                                                               \
    extern "C" int NAME(int act, int order, const T* x, const T* b, const T* h, const T* saved, T* out, int64_t size,   \
                        int64_t step, int64_t channels, double alpha, double gain, double clamp, void* stream) {       \
        return dispatch<T>(act, order, x, b, h, saved, out, size, step, channels, alpha, gain, clamp, stream);         \
    }
EXPORT(bias_act_cuda_half, __half)
EXPORT(bias_act_cuda_float, float)
EXPORT(bias_act_cuda_double, double)
