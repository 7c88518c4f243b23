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

// What both benches read. plan.bin: images, task, layers, then the plans.
template <class C>
struct Files {
    std::vector<int64_t> items;
    std::vector<typename C::weight_t> weights;
    std::vector<param_t> params;
    std::vector<int32_t> inputs, orders;
    int images, task, layers;

    bool read(const std::string& memory, const std::string& folder) {
        std::vector<typename C::stored_t> stored;
        std::vector<int32_t> numbers;
        if (!read_items(folder + "/plan.bin", items) || !read_items(folder + "/inputs.bin", inputs) ||
            !read_items(folder + "/orders.bin", orders) ||
            !read_items(memory + "/weights.bin", stored) ||
            !read_items(memory + "/parameters.bin", numbers)) {
            return false;
        }
        weights = converted<typename C::weight_t>(stored);
        params = converted<param_t>(numbers);
        images = int(items[0]);
        task = int(items[1]);
        layers = int(items[2]);
        return true;
    }
};

inline int finish(const std::string& folder, const std::vector<int32_t>& outputs,
                  const std::vector<int32_t>& routes) {
    const bool whole = write_items(folder + "/outputs.bin", outputs) &&
                       write_items(folder + "/routes.bin", routes);
    return whole ? 0 : 3;
}

// One layer of experts. Inputs of an image: normalised tokens, what the router sees, what is added.
template <class C>
int bench_layer(const std::string& memory, const std::string& folder) {
    typedef typename C::act_t act_t;
    Files<C> files;
    if (!files.read(memory, folder)) return 2;
    size_t at = 3;
    const FeedPlan plan = take<FeedPlan>(files.items, at);
    const std::vector<act_t> x = converted<act_t>(files.inputs);
    const size_t size = C::tokens * C::dim;
    std::vector<int32_t> outputs, routes;
    Routes<C> found;
    for (int i = 0; i < files.images; ++i) {
        const act_t* image = &x[3 * size * i];
        std::vector<act_t> tokens(image + 2 * size, image + 3 * size);
        moe_layer<C>(image, image + size, &tokens[0], files.task, &files.weights[0],
                     &files.params[0], plan, &files.orders[0], found);
        for (size_t j = 0; j < size; ++j) outputs.push_back(int32_t(tokens[j]));
        add_routes<C>(found, routes);
    }
    return finish(folder, outputs, routes);
}

// Whole images.
template <class C>
int bench_encoder(const std::string& memory, const std::string& folder) {
    typedef typename C::act_t act_t;
    Files<C> files;
    if (!files.read(memory, folder)) return 2;
    size_t at = 3;
    const EncoderPlan plan = take<EncoderPlan>(files.items, at);
    std::vector<BlockPlan> blocks;
    for (int i = 0; i < C::depth; ++i) blocks.push_back(take<BlockPlan>(files.items, at));
    const std::vector<ap_uint<8> > pixels = converted<ap_uint<8> >(files.inputs);
    const size_t size = size_t(C::tokens - C::prefix) * C::patch_inputs;
    std::vector<int32_t> outputs, routes;
    std::vector<act_t> tokens(C::tokens * C::dim);
    std::vector<Routes<C> > found(files.layers + 1);
    for (int i = 0; i < files.images; ++i) {
        encoder_top<C>(files.task, &pixels[size * i], &files.weights[0], &files.params[0], plan,
                       &blocks[0], files.orders.data(), &tokens[0], &found[0]);
        for (size_t j = 0; j < tokens.size(); ++j) outputs.push_back(int32_t(tokens[j]));
        for (int j = 0; j < files.layers; ++j) add_routes<C>(found[j], routes);
    }
    return finish(folder, outputs, routes);
}

}  // namespace mtl

#endif
