// upfirdn2d on CUDA: one thread an output number.
#include "upfirdn2d.h"
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace {

template <class T, class C>
__global__ void kernel(const T* x, const float* filter, T* out, Upfirdn p) {
    const int64_t size = p.planes * p.out_h * p.out_w * p.vector;
    for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x)
        out[i] = T(upfirdn_number<T, C>(x, filter, p, i));
}

template <class T, class C>
int launch(const T* x, const float* filter, T* out, const Upfirdn* p, void* stream) {
    const int threads = 256;
    const int64_t wanted = (p->planes * p->out_h * p->out_w * p->vector + threads - 1) / threads;
    kernel<T, C><<<int(wanted < 65536 ? wanted : 65536), threads, 0, static_cast<cudaStream_t>(stream)>>>(x, filter, out, *p);
    return int(cudaGetLastError());
}

}  // namespace

// x, filter and out are on the device, the parameters on the host. Returns a cudaError_t.
extern "C" int upfirdn2d_cuda_half(const __half* x, const float* filter, __half* out, const Upfirdn* p, void* stream) {
    return launch<__half, float>(x, filter, out, p, stream);
}
extern "C" int upfirdn2d_cuda_float(const float* x, const float* filter, float* out, const Upfirdn* p, void* stream) {
    return launch<float, float>(x, filter, out, p, stream);
}
extern "C" int upfirdn2d_cuda_double(const double* x, const float* filter, double* out, const Upfirdn* p, void* stream) {
    return launch<double, double>(x, filter, out, p, stream);
}
