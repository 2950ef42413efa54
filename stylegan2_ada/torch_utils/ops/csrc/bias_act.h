// phi(u) = clamp(gain * act(u)) for u = x + b, with its first two derivatives. One element.
#pragma once
#include <cmath>
#include <cstdint>

#define INLINE inline __attribute__((always_inline))

// Numbers of the activations, as in bias_act.activation_funcs.
enum Activation { LINEAR = 1, RELU, LRELU, TANH, SIGMOID, ELU, SELU, SOFTPLUS, SWISH };

template <class T>
struct BiasAct {
    T alpha, gain, clamp;  // clamp < 0: no limit

    // act, act' and act'' at u
    template <int ACT, int ORDER>
    INLINE T activation(T u) const {
        const T zero = 0, one = 1;
        if (ACT == LINEAR) return ORDER == 0 ? u : ORDER == 1 ? one : zero;
        if (ACT == RELU) return ORDER == 0 ? (u > zero ? u : zero) : ORDER == 1 ? (u > zero ? one : zero) : zero;
        if (ACT == LRELU) return ORDER == 0 ? (u > zero ? u : u * alpha) : ORDER == 1 ? (u > zero ? one : alpha) : zero;
        if (ACT == TANH) {
            const T y = std::tanh(u);
            return ORDER == 0 ? y : ORDER == 1 ? one - y * y : T(-2) * y * (one - y * y);
        }
        if (ACT == ELU || ACT == SELU) {
            const T scale = ACT == SELU ? T(1.0507009873554804934193349852946) : one;
            const T left = ACT == SELU ? scale * T(1.6732632423543772848170429916717) : one;
            if (u >= zero) return ORDER == 0 ? scale * u : ORDER == 1 ? scale : zero;
            return ORDER == 0 ? left * std::expm1(u) : left * std::exp(u);
        }
        const T s = u >= zero ? one / (one + std::exp(-u)) : std::exp(u) / (one + std::exp(u));  // sigmoid
        if (ACT == SIGMOID) return ORDER == 0 ? s : ORDER == 1 ? s * (one - s) : s * (one - s) * (one - 2 * s);
        if (ACT == SOFTPLUS) {
            const T y = (u > zero ? u : zero) + std::log1p(std::exp(u > zero ? -u : u));
            return ORDER == 0 ? y : ORDER == 1 ? s : s * (one - s);
        }
        if (ACT == SWISH) {
            if (ORDER == 0) return u * s;
            if (ORDER == 1) return s * (one + u * (one - s));
            return s * (one - s) * (T(2) + u * (one - 2 * s));
        }
        return u;
    }

    INLINE bool limited(T y) const { return (clamp >= T(0)) & !((y > -clamp) & (y < clamp)); }  // no branches: vectors

    // phi(u)
    template <int ACT>
    INLINE T forward(T u) const {
        T y = gain * activation<ACT, 0>(u);
        if (clamp >= T(0)) y = y > clamp ? clamp : y < -clamp ? -clamp : y;
        return y;
    }

    // phi'(u) or phi''(u). `saved` is u, or for activations that keep the sign (and gain > 0) it may be phi(u).
    template <int ACT, int ORDER>
    INLINE T derivative(T saved) const {
        const bool keeps_sign = ACT == LINEAR || ACT == RELU || ACT == LRELU;
        const T y = keeps_sign ? saved : gain * activation<ACT, 0>(saved);
        return limited(y) ? T(0) : gain * activation<ACT, ORDER>(saved);
    }
};
