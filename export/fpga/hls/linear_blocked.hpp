// The linear engine: block_out x block_in products a cycle, weights in the order of their use.
#ifndef MTL_LINEAR_BLOCKED_HPP
#define MTL_LINEAR_BLOCKED_HPP

#include "numbers.hpp"
#include "plan.hpp"

namespace mtl {

template <class C, int IN, int OUT>
struct Blocks {
    static const int in = (IN + C::block_in - 1) / C::block_in;
    static const int out = (OUT + C::block_out - 1) / C::block_out;
    static const int size = C::block_in * C::block_out;
    static const int words = in * out * size;
};

// Sums of one block of outputs, for one token.
template <class C, int IN, class X>
inline void block_sums(const X* x, const typename C::weight_t* w, typename C::sum_t* sums) {
    for (int ib = 0; ib < Blocks<C, IN, 1>::in; ++ib) {
#pragma HLS PIPELINE II = 1
        for (int o = 0; o < C::block_out; ++o) {
#pragma HLS UNROLL
            typename C::part_t part = 0;
            for (int i = 0; i < C::block_in; ++i) {
#pragma HLS UNROLL
                const int at = ib * C::block_in + i;
                if (at >= IN) continue;
                typedef typename C::part_t part_t;
                part += part_t(x[at]) * part_t(w[(ib * C::block_out + o) * C::block_in + i]);
            }
            sums[o] += part;
        }
    }
}

// y (rows, OUT) = x (rows, IN) W' + b (+ residual), rounded once.
template <class C, int IN, int OUT, class X>
void linear_blocked(const X* x, typename C::act_t* y, int rows, const typename C::weight_t* w,
                    const param_t* bias, const LinearPlan& plan,
                    const typename C::act_t* residual = 0, int residual_align = 0,
                    const param_t* constant = 0, int constant_align = 0) {
#pragma HLS ALLOCATION instances = block_sums limit = 1 function
    for (int ob = 0; ob < Blocks<C, IN, OUT>::out; ++ob) {
        for (int n = 0; n < rows; ++n) {
            typename C::sum_t sums[C::block_out];
#pragma HLS ARRAY_PARTITION variable = sums complete
            for (int o = 0; o < C::block_out; ++o) {
                const int at = ob * C::block_out + o;
                sums[o] = at < OUT ? shifted(wide_t(bias[at]), -int(plan.align)) : wide_t(0);
            }
            block_sums<C, IN, X>(x + n * IN, w + ob * Blocks<C, IN, OUT>::in * Blocks<C, IN, OUT>::size,
                                 sums);
            for (int o = 0; o < C::block_out; ++o) {
                const int at = ob * C::block_out + o;
                if (at >= OUT) continue;
                wide_t total = wide_t(sums[o]);
                if (residual) total += shifted(wide_t(residual[n * OUT + at]), -residual_align);
                if (constant) total += shifted(wide_t(constant[n * OUT + at]), -constant_align);
                y[n * OUT + at] = written<typename C::act_t>(total, int(plan.shift));
            }
        }
    }
}

}  // namespace mtl

#endif
