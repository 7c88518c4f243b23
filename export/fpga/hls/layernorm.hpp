// Layer norm in two passes over a token: its mean, then the variance of what is left.
#ifndef MTL_LAYERNORM_HPP
#define MTL_LAYERNORM_HPP

#include "numbers.hpp"
#include "plan.hpp"
#include "tables.hpp"

namespace mtl {

// 1 / sqrt(total): table, then one Newton step. e is even, total = m * 2^e with m in [1, 4).
inline root_t inverse_root(wide_t total, int* exponent) {
    int length = 0;
    for (int bit = 1; bit < 63; ++bit) {
#pragma HLS UNROLL
        if ((total >> bit) > 0) length = bit;
    }
    int e = length - MANTISSA_POINT;
    e -= e & 1;
    const wide_t m = e >= 0 ? total >> e : total << -e;
    const wide_t first = ROOT_TABLE[int(m >> (MANTISSA_POINT - 6)) - 64];
    const wide_t square = (first * first) >> ROOT_POINT;
    const wide_t near = (m * square) >> MANTISSA_POINT;
    *exponent = e;
    return from_mantissa<root_t>((first * ((wide_t(3) << ROOT_POINT) - near)) >> (ROOT_POINT + 1));
}

template <class C, int D>
void layernorm(const typename C::act_t* x, typename C::act_t* y, int rows, const param_t* gamma,
               const param_t* beta, const NormPlan& plan) {
    static const int guard = 2;
    static const int lost = C::act_bits + 1 + guard > 24 ? C::act_bits + 1 + guard - 24 : 0;
    for (int n = 0; n < rows; ++n) {
        wide_t sum = 0;
        for (int i = 0; i < D; ++i) {
#pragma HLS PIPELINE II = 1
            sum += wide_t(x[n * D + i]);
        }
        const wide_t mean = shifted(sum * C::inverse_width, C::inverse_point - guard);
        wide_t total = 0;
        for (int i = 0; i < D; ++i) {
#pragma HLS PIPELINE II = 1
            const wide_t centred = (wide_t(x[n * D + i]) * (1 << guard)) - mean;
            const wide_t cut = shifted(centred, lost);
            total += cut * cut;
        }
        total += plan.epsilon;
        int e = 0;
        const root_t root = inverse_root(total, &e);
        const int right = ROOT_POINT - UNIT_POINT + lost + (e + MANTISSA_POINT) / 2;
        for (int i = 0; i < D; ++i) {
#pragma HLS PIPELINE II = 1
            const wide_t centred = (wide_t(x[n * D + i]) * (1 << guard)) - mean;
            const wide_t unit = shifted(centred * mantissa(root), right);
            const wide_t wide = unit * wide_t(gamma[i]) + shifted(wide_t(beta[i]), -int(plan.align));
            y[n * D + i] = written<typename C::act_t>(wide, int(plan.shift));
        }
    }
}

}  // namespace mtl

#endif
