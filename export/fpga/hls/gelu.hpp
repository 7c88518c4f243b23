// GELU(x) = ReLU(x) - delta(|x|), delta from a table with a line between two entries.
#ifndef MTL_GELU_HPP
#define MTL_GELU_HPP

#include "numbers.hpp"
#include "tables.hpp"

namespace mtl {

template <class T>
inline T gelu_delta(const T& x, int point, int out_point) {
#pragma HLS INLINE
    const wide_t value = wide_t(x);
    const wide_t a = value < 0 ? -value : value;
    const int low = point - GELU_STEPS;
    const wide_t at = a >> low;
    wide_t below = 0;
    if (at < TABLE) {
        const int j = int(at);
        const wide_t here = GELU_TABLE[j];
        const wide_t after = j < TABLE - 1 ? GELU_TABLE[j + 1] : 0;
        const wide_t rest = a - (at << low);
        below = here + (((after - here) * rest) >> low);
    }
    const wide_t above = value > 0 ? value : wide_t(0);
    const wide_t wide = shifted(above, point - GELU_POINT) - below;
    return written<T>(wide, GELU_POINT - out_point);
}

}  // namespace mtl

#endif
