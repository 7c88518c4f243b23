// Self-attention of one image, a tile of queries at a time: keys are read once a tile.
#ifndef MTL_ATTENTION_TILE_HPP
#define MTL_ATTENTION_TILE_HPP

#include "linear_blocked.hpp"
#include "softmax_row.hpp"

namespace mtl {

// Contexts of the queries first .. first + tile - 1 of one head.
template <class C>
void attention_tile(const typename C::act_t* q, const typename C::act_t* k,
                    const typename C::act_t* v, typename C::act_t* y, int head, int first,
                    const AttentionPlan& plan) {
    static const int N = C::tokens, D = C::dim, width = C::dim / C::heads;
    static exponent_t z[C::tile][N];
    static prob_t p[C::tile][N];
#pragma HLS ARRAY_PARTITION variable = z dim = 1 complete
#pragma HLS ARRAY_PARTITION variable = p dim = 1 complete
    const int at = head * width;
    const int rows = N - first < C::tile ? N - first : C::tile;
    for (int j = 0; j < N; ++j) {
#pragma HLS PIPELINE
        for (int t = 0; t < rows; ++t) {
            wide_t sum = 0;
            for (int i = 0; i < width; ++i) {
                sum += wide_t(q[(first + t) * D + at + i] * k[j * D + at + i]);
            }
            z[t][j] = exponent(sum, int(plan.score), C::attention_factor());
        }
    }
    for (int t = 0; t < rows; ++t) softmax_row<N>(z[t], p[t]);
    for (int t = 0; t < rows; ++t) {
        for (int i = 0; i < width; ++i) {
#pragma HLS PIPELINE
            wide_t sum = 0;
            for (int j = 0; j < N; ++j) {
                sum += mantissa(p[t][j]) * wide_t(v[j * D + at + i]);
            }
            y[(first + t) * D + at + i] = written<typename C::act_t>(sum, int(plan.shift));
        }
    }
}

// x + project(attention(inner)), for inner = norm(x).
template <class C>
void attention_layer(const typename C::act_t* inner, typename C::act_t* x,
                     const typename C::weight_t* weights, const param_t* params,
                     const AttentionPlan& plan) {
    static const int N = C::tokens, D = C::dim;
    static typename C::act_t q[N * D], k[N * D], v[N * D], context[N * D];
    linear_blocked<C, D, D>(inner, q, N, weights + plan.query.weight, params + plan.query.bias,
                            plan.query);
    linear_blocked<C, D, D>(inner, k, N, weights + plan.key.weight, params + plan.key.bias,
                            plan.key);
    linear_blocked<C, D, D>(inner, v, N, weights + plan.value.weight, params + plan.value.bias,
                            plan.value);
    for (int head = 0; head < C::heads; ++head) {
        for (int first = 0; first < N; first += C::tile) {
            attention_tile<C>(q, k, v, context, head, first, plan);
        }
    }
    linear_blocked<C, D, D>(context, x, N, weights + plan.project.weight,
                            params + plan.project.bias, plan.project, x, int(plan.residual));
}

}  // namespace mtl

#endif
