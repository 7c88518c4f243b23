// Experts one after another, each on its whole queue, with two buffers of weights: while one expert
// computes, the next one's weights are fetched. Working memory does not depend on E and K.
#ifndef MTL_MOE_LAYER_HPP
#define MTL_MOE_LAYER_HPP

#include "gate_topk.hpp"
#include "gelu.hpp"

namespace mtl {

// One buffer: the weights of an expert, or of a perceptron.
template <class C, int H>
struct Buffer {
    static const int first_words = Blocks<C, C::dim, H>::words;
    static const int words = first_words + Blocks<C, H, C::dim>::words;
    typename C::weight_t weights[words];
    param_t biases[H + C::dim];
};

template <class C, int H>
void load(Buffer<C, H>& buffer, const typename C::weight_t* weights, const param_t* biases) {
    for (int i = 0; i < Buffer<C, H>::words; ++i) {
#pragma HLS PIPELINE II = 1
        buffer.weights[i] = weights[i];
    }
    for (int i = 0; i < H + C::dim; ++i) buffer.biases[i] = biases[i];
}

// Two layers with GELU between, for one token.
template <class C, int H>
void perceptron(const Buffer<C, H>& buffer, const typename C::act_t* x, typename C::act_t* y,
                const FeedPlan& plan, const typename C::act_t* residual = 0) {
    typename C::act_t hidden[H];
    linear_blocked<C, C::dim, H>(x, hidden, 1, buffer.weights, buffer.biases, plan.first);
    for (int i = 0; i < H; ++i) {
#pragma HLS PIPELINE II = 1
        hidden[i] = gelu_delta(hidden[i], int(plan.point), int(plan.out_point));
    }
    linear_blocked<C, H, C::dim>(hidden, y, 1, buffer.weights + Buffer<C, H>::first_words,
                                 buffer.biases + H, plan.second, residual, int(plan.residual));
}

// x + sum of gate * expert(inner), for tokens seen by the router of a task.
template <class C>
void moe_layer(const typename C::act_t* inner, const typename C::act_t* seen, typename C::act_t* x,
               int task, const typename C::weight_t* weights, const param_t* params,
               const FeedPlan& plan, const int* order, Routes<C>& routes) {
    static const int N = C::tokens, D = C::dim, H = C::expert_hidden;
    static Queues<C> queues;
    static Buffer<C, H> buffer[2];
    static wide_t sums[N * D];
    int listed[C::experts];
    int active = 0;
    route<C>(seen, task, weights, params, plan, queues, routes);
    for (int i = 0; i < C::experts; ++i) {
        if (queues.count[order[i]] > 0) listed[active++] = order[i];
    }
    for (int i = 0; i < N * D; ++i) sums[i] = 0;
    const typename C::weight_t* w = weights + plan.first.weight;
    const param_t* b = params + plan.first.bias;
    routes.loads = 0;
    for (int i = 0; i < active; ++i) {
#pragma HLS DATAFLOW
        if (i == 0) {
            load<C, H>(buffer[0], w + listed[0] * plan.weight_stride, b + listed[0] * plan.bias_stride);
            ++routes.loads;
        }
        if (i + 1 < active) {
            const int next = listed[i + 1];
            load<C, H>(buffer[(i + 1) % 2], w + next * plan.weight_stride, b + next * plan.bias_stride);
            ++routes.loads;
        }
        const int e = listed[i];
        for (int j = 0; j < queues.count[e]; ++j) {
            const int n = queues.token[e][j];
            typename C::act_t y[D];
            perceptron<C, H>(buffer[i % 2], inner + n * D, y, plan);
            const wide_t gate = mantissa(queues.gate[e][j]);
            for (int d = 0; d < D; ++d) sums[n * D + d] += gate * wide_t(y[d]);
        }
    }
    for (int i = 0; i < N * D; ++i) {
#pragma HLS PIPELINE II = 1
        const wide_t total = sums[i] + shifted(wide_t(x[i]), -int(plan.residual));
        x[i] = written<typename C::act_t>(total, int(plan.combine));
    }
}

// x + perceptron(inner), for blocks without experts.
template <class C>
void mlp_layer(const typename C::act_t* inner, typename C::act_t* x,
               const typename C::weight_t* weights, const param_t* params, const FeedPlan& plan) {
    static Buffer<C, C::mlp_hidden> buffer;
    load<C, C::mlp_hidden>(buffer, weights + plan.first.weight, params + plan.first.bias);
    for (int n = 0; n < C::tokens; ++n) {
        perceptron<C, C::mlp_hidden>(buffer, inner + n * C::dim, x + n * C::dim, plan,
                                     x + n * C::dim);
    }
}

}  // namespace mtl

#endif
