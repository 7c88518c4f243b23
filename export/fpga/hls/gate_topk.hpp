// The router: experts of every token, best first, and their gates; a queue for every expert.
#ifndef MTL_GATE_TOPK_HPP
#define MTL_GATE_TOPK_HPP

#include "linear_blocked.hpp"
#include "softmax_row.hpp"

namespace mtl {

template <class C>
struct Queues {
    int count[C::experts];
    int token[C::experts][C::tokens];
    prob_t gate[C::experts][C::tokens];
};

template <class C>
struct Routes {
    int expert[C::tokens][C::top_k];
    prob_t gate[C::tokens][C::top_k];
    int loads;
};

// The K largest exponents; among equals the lower index. Every slot is assigned.
template <class C>
void gate_topk(const exponent_t* z, int* best, bool* taken) {
    for (int e = 0; e < C::experts; ++e) taken[e] = false;
    for (int k = 0; k < C::top_k; ++k) {
        int found = -1;
        for (int e = 0; e < C::experts; ++e) {
#pragma HLS PIPELINE II = 1
            if (!taken[e] && (found < 0 || z[e] > z[found])) found = e;
        }
        best[k] = found;
        taken[found] = true;
    }
}

template <class C>
void route(const typename C::act_t* x, int task, const typename C::weight_t* weights,
           const param_t* params, const FeedPlan& plan, Queues<C>& queues, Routes<C>& routes) {
    typedef Blocks<C, C::dim, C::gate_halves * C::experts> Shape;
    const typename C::weight_t* w = weights + plan.gate.weight + task * plan.gate_weights;
    const param_t* bias = params + plan.gate.bias + task * plan.gate_biases;
    for (int e = 0; e < C::experts; ++e) queues.count[e] = 0;
    for (int n = 0; n < C::tokens; ++n) {
        exponent_t z[C::experts];
        prob_t p[C::experts];
        bool taken[C::experts];
        wide_t total[C::experts];
        for (int e = 0; e < C::experts; ++e) {
            total[e] = shifted(wide_t(bias[e]), -int(plan.gate.align));
        }
        for (int ob = 0; ob < Shape::out; ++ob) {
            typename C::sum_t sums[C::block_out];
            for (int o = 0; o < C::block_out; ++o) sums[o] = 0;
            block_sums<C, C::dim, typename C::act_t>(x + n * C::dim, w + ob * Shape::in * Shape::size,
                                                     sums);
            for (int o = 0; o < C::block_out; ++o) {
                const int row = ob * C::block_out + o;
                if (row >= C::gate_halves * C::experts) continue;
                const bool high = C::gate_halves == 2 && row < C::experts;
                total[row % C::experts] += shifted(wide_t(sums[o]), high ? 1 - C::weight_bits : 0);
            }
        }
        for (int e = 0; e < C::experts; ++e) {
            z[e] = exponent(total[e], int(plan.score), C::gate_factor());
        }
        gate_topk<C>(z, routes.expert[n], taken);
        softmax_row<C::experts>(z, p, C::renormalised ? taken : 0);
        for (int k = 0; k < C::top_k; ++k) {
            const int e = routes.expert[n][k];
            routes.gate[n][k] = p[e];
            queues.token[e][queues.count[e]] = n;
            queues.gate[e][queues.count[e]] = p[e];
            ++queues.count[e];
        }
    }
}

}  // namespace mtl

#endif
