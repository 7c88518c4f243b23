// The encoder of one image for one task: patches in, final tokens out. Heads run elsewhere.
#ifndef MTL_ENCODER_TOP_HPP
#define MTL_ENCODER_TOP_HPP

#include "attention_tile.hpp"
#include "layernorm.hpp"
#include "moe_layer.hpp"

namespace mtl {

template <class C>
void encoder_top(int task, const ap_uint<8>* pixels, const typename C::weight_t* weights,
                 const param_t* params, const EncoderPlan& plan, const BlockPlan* blocks,
                 const int* orders, typename C::act_t* tokens, Routes<C>* routes) {
#pragma HLS INTERFACE m_axi port = pixels bundle = pixels
#pragma HLS INTERFACE m_axi port = weights bundle = weights
#pragma HLS INTERFACE m_axi port = params bundle = params
#pragma HLS INTERFACE m_axi port = tokens bundle = tokens
    static const int N = C::tokens, D = C::dim;
    static typename C::act_t x[N * D], inner[N * D], before[N * D];
    for (int i = 0; i < C::prefix * D; ++i) x[i] = params[plan.prefix + i];
    const typename C::act_t* none = 0;
    linear_blocked<C, C::patch_inputs, D>(pixels, x + C::prefix * D, N - C::prefix,
                                          weights + plan.patch.weight, params + plan.patch.bias,
                                          plan.patch, none, 0, params + plan.position,
                                          int(plan.position_align));
    int routed = 0;
    for (int i = 0; i < C::depth; ++i) {
        const BlockPlan& block = blocks[i];
        if (C::ahead) {
            for (int j = 0; j < N * D; ++j) before[j] = x[j];
        }
        layernorm<C, D>(x, inner, N, params + block.norm1.gamma, params + block.norm1.beta,
                        block.norm1);
        attention_layer<C>(inner, x, weights, params, block.attention);
        layernorm<C, D>(x, inner, N, params + block.norm2.gamma, params + block.norm2.beta,
                        block.norm2);
        if (block.feed.routed) {
            moe_layer<C>(inner, C::ahead ? before : inner, x, task, weights, params, block.feed,
                         orders + routed * C::experts, routes[routed]);
            ++routed;
        } else {
            mlp_layer<C>(inner, x, weights, params, block.feed);
        }
    }
    layernorm<C, D>(x, tokens, N, params + plan.norm.gamma, params + plan.norm.beta, plan.norm);
}

}  // namespace mtl

#endif
