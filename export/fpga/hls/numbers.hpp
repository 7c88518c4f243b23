// Numbers of the kernels. Calibrated tensors are mantissas (ap_int) whose points come as arguments,
// so that one engine serves all layers; what has the same point always is an ap_ufixed.
#ifndef MTL_NUMBERS_HPP
#define MTL_NUMBERS_HPP

#include <cstdint>

#include "ap_fixed.h"
#include "ap_int.h"

namespace mtl {

typedef int64_t wide_t;               // sums and products that are cut before they are kept
typedef ap_int<32> param_t;           // biases, norms, position embedding
typedef ap_int<32> exponent_t;        // of two, at point 16
typedef ap_ufixed<22, -2> gelu_t;     // how far GELU lies below ReLU
typedef ap_ufixed<23, 1> power_t;     // 2^-d
typedef ap_ufixed<24, 1> root_t;      // 1 / sqrt(m)
typedef ap_ufixed<21, 1> prob_t;      // probabilities and gates
typedef ap_ufixed<21, 2> factor_t;    // scale times log2(e)

static const int SCORE_POINT = 18;
static const int SCORE_BITS = 40;
static const int FACTOR_POINT = 19;
static const int EXPONENT_POINT = 16;
static const int INVERSE_POINT = 30;
static const int POWER_POINT = 22;
static const int PROB_POINT = 20;
static const int GELU_POINT = 24;
static const int GELU_STEPS = 5;
static const int ROOT_POINT = 23;
static const int UNIT_POINT = 26;
static const int MANTISSA_POINT = 22;
static const int TABLE = 256;

// Mantissa of an unsigned fixed-point number, and back.
template <int W, int I>
inline wide_t mantissa(const ap_ufixed<W, I>& x) {
    return wide_t(x.range(W - 1, 0).to_uint64());
}

template <class T>
inline T from_mantissa(wide_t m) {
    T x;
    x.range(T::width - 1, 0) = ap_uint<T::width>(m);
    return x;
}

// x * 2^-right, halves rounded up; to the left where right is negative.
inline wide_t shifted(wide_t x, int right) {
    if (right <= 0) return x * (wide_t(1) << -right);
    return (x + (wide_t(1) << (right - 1))) >> right;
}

inline wide_t saturated(wide_t x, int bits) {
    const wide_t high = (wide_t(1) << (bits - 1)) - 1;
    const wide_t low = -high - 1;
    return x > high ? high : (x < low ? low : x);
}

// The write back of a wide sum: one rounding, then saturation.
template <class T>
inline T written(wide_t x, int right) {
    return T(saturated(shifted(x, right), T::width));
}

}  // namespace mtl

#endif
