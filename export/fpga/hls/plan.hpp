// Where the numbers of a layer lie in memory, and the shifts between its tensors' points. All
// members are 64-bit integers, in the order in which the generator writes them.
#ifndef MTL_PLAN_HPP
#define MTL_PLAN_HPP

#include <cstdint>

namespace mtl {

struct LinearPlan {
    int64_t weight, bias;  // offsets into weights and parameters
    int64_t align;         // left shift of the bias to the sums
    int64_t shift;         // right shift of the sums to the output
};

struct NormPlan {
    int64_t gamma, beta;
    int64_t epsilon;  // in units of the sum of squares
    int64_t align, shift;
};

struct AttentionPlan {
    LinearPlan query, key, value;
    int64_t score;  // right shift of query * key to point 18
    int64_t shift;  // right shift of probabilities * values to the output
    LinearPlan project;
    int64_t residual;  // left shift of the residual to the sums
};

struct FeedPlan {
    int64_t routed;  // 1: experts, 0: one perceptron
    LinearPlan first, second;
    int64_t point, out_point;               // of the GELU
    int64_t residual;                       // left shift of the residual
    int64_t weight_stride, bias_stride;     // from an expert to the next
    LinearPlan gate;                        // of task 0
    int64_t gate_weights, gate_biases;      // from a task to the next
    int64_t score;                          // right shift of the router's sums to point 18
    int64_t combine;                        // right shift of the gated sum to the output
};

struct BlockPlan {
    NormPlan norm1;
    AttentionPlan attention;
    NormPlan norm2;
    FeedPlan feed;
};

struct EncoderPlan {
    LinearPlan patch;
    int64_t prefix, position, position_align;
    NormPlan norm;
};

}  // namespace mtl

#endif
