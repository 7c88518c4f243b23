// Test bench: reads what the generator wrote, runs images or single layers of experts, writes
// mantissas. Comparing is the generator's business.
#ifndef MTL_BENCH_HPP
#define MTL_BENCH_HPP

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "encoder_top.hpp"

namespace mtl {

template <class T>
bool read_items(const std::string& path, std::vector<T>& items) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (!file) {
        std::fprintf(stderr, "cannot open %s\n", path.c_str());
        return false;
    }
    std::fseek(file, 0, SEEK_END);
    const long bytes = std::ftell(file);
    std::rewind(file);
    items.resize(bytes / sizeof(T));
    const bool whole = items.empty() || std::fread(&items[0], sizeof(T), items.size(), file) == items.size();
    std::fclose(file);
    return whole;
}

inline bool write_items(const std::string& path, const std::vector<int32_t>& items) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (!file) return false;
    const bool whole = std::fwrite(items.data(), sizeof(int32_t), items.size(), file) == items.size();
    return std::fclose(file) == 0 && whole;
}

template <class To, class From>
std::vector<To> converted(const std::vector<From>& items) {
    return std::vector<To>(items.begin(), items.end());
}

template <class C>
void add_routes(const Routes<C>& found, std::vector<int32_t>& routes) {
    for (int n = 0; n < C::tokens; ++n) {
        for (int k = 0; k < C::top_k; ++k) routes.push_back(found.expert[n][k]);
        for (int k = 0; k < C::top_k; ++k) routes.push_back(int32_t(mantissa(found.gate[n][k])));
    }
    routes.push_back(found.loads);
}

// Takes the next plan off a row of 64-bit integers.
template <class P>
P take(const std::vector<int64_t>& items, size_t& at) {
    P plan;
    std::memcpy(&plan, &items[at], sizeof(P));
    at += sizeof(P) / sizeof(int64_t);
    return plan;
}

// plan.bin: mode (0 encoder, 1 one layer of experts), images, task, layers, then the plans.
template <class C>
int bench(const std::string& weights_folder, const std::string& folder) {
    std::vector<int64_t> items;
    std::vector<typename C::stored_t> stored;
    std::vector<int32_t> numbers, inputs, orders, outputs, routes;
    if (!read_items(folder + "/plan.bin", items) || !read_items(folder + "/inputs.bin", inputs) ||
        !read_items(folder + "/orders.bin", orders) ||
        !read_items(weights_folder + "/weights.bin", stored) ||
        !read_items(weights_folder + "/parameters.bin", numbers)) {
        return 2;
    }
    typedef typename C::act_t act_t;
    const std::vector<typename C::weight_t> weights = converted<typename C::weight_t>(stored);
    const std::vector<param_t> params = converted<param_t>(numbers);
    const int mode = int(items[0]), images = int(items[1]), task = int(items[2]);
    const int layers = int(items[3]);
    size_t at = 4;
    std::vector<act_t> tokens(C::tokens * C::dim);
    std::vector<Routes<C> > found(layers + 1);
    if (mode == 1) {
        // inputs of an image: normalised tokens, what the router sees, what outputs are added to
        const FeedPlan plan = take<FeedPlan>(items, at);
        const std::vector<act_t> x = converted<act_t>(inputs);
        const size_t size = tokens.size();
        for (int i = 0; i < images; ++i) {
            const act_t* image = &x[3 * size * i];
            tokens.assign(image + 2 * size, image + 3 * size);
            moe_layer<C>(image, image + size, &tokens[0], task, &weights[0], &params[0], plan,
                         &orders[0], found[0]);
            for (size_t j = 0; j < size; ++j) outputs.push_back(int32_t(tokens[j]));
            add_routes<C>(found[0], routes);
        }
    } else {
        const EncoderPlan plan = take<EncoderPlan>(items, at);
        std::vector<BlockPlan> blocks;
        for (int i = 0; i < C::depth; ++i) blocks.push_back(take<BlockPlan>(items, at));
        const std::vector<ap_uint<8> > pixels = converted<ap_uint<8> >(inputs);
        const size_t size = size_t(C::tokens - C::prefix) * C::patch_inputs;
        for (int i = 0; i < images; ++i) {
            encoder_top<C>(task, &pixels[size * i], &weights[0], &params[0], plan, &blocks[0],
                           orders.data(), &tokens[0], &found[0]);
            for (size_t j = 0; j < tokens.size(); ++j) outputs.push_back(int32_t(tokens[j]));
            for (int j = 0; j < layers; ++j) add_routes<C>(found[j], routes);
        }
    }
    return write_items(folder + "/outputs.bin", outputs) && write_items(folder + "/routes.bin", routes) ? 0 : 3;
}

}  // namespace mtl

#endif
