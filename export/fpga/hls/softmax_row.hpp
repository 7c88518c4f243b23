// Softmax of a row of exponents of two: maximum and sum in one pass, probabilities in another.
#ifndef MTL_SOFTMAX_ROW_HPP
#define MTL_SOFTMAX_ROW_HPP

#include "numbers.hpp"
#include "tables.hpp"

namespace mtl {

// 2^-d for d >= 0 at point 16.
inline power_t power(wide_t d) {
#pragma HLS INLINE
    const int low = EXPONENT_POINT - 8;
    const wide_t whole = d >> EXPONENT_POINT;
    const int fraction = int(d & ((wide_t(1) << EXPONENT_POINT) - 1));
    const int j = fraction >> low;
    const wide_t here = POWER_TABLE[j];
    const wide_t after = j < TABLE - 1 ? wide_t(POWER_TABLE[j + 1]) : wide_t(POWER_TABLE[0] >> 1);
    const wide_t rest = fraction & ((1 << low) - 1);
    const wide_t line = here + (((after - here) * rest) >> low);
    const int down = whole > POWER_POINT + 1 ? POWER_POINT + 1 : int(whole);
    return from_mantissa<power_t>(line >> down);
}

// Exponent of two of a score: a sum of products times scale * log2(e).
inline exponent_t exponent(wide_t sum, int shift, const factor_t& factor) {
#pragma HLS INLINE
    const wide_t narrow = saturated(shifted(sum, shift), SCORE_BITS);
    const int right = SCORE_POINT + FACTOR_POINT - EXPONENT_POINT;
    return written<exponent_t>(narrow * mantissa(factor), right);
}

// Probabilities p (N) of exponents z (N). Where counted is given, only those make up the sum.
template <int N>
void softmax_row(const exponent_t* z, prob_t* p, const bool* counted = 0) {
    wide_t largest = -(wide_t(1) << 31);
    wide_t total = 0;
    for (int j = 0; j < N; ++j) {
#pragma HLS PIPELINE
        if (counted && !counted[j]) continue;
        const wide_t next = wide_t(z[j]);
        if (next > largest) {
            total = ((total * mantissa(power(next - largest))) >> POWER_POINT) +
                    (wide_t(1) << POWER_POINT);
            largest = next;
        } else {
            total += mantissa(power(largest - next));
        }
    }
    if (total < 1) total = 1;  // never divide by nothing
    const wide_t inverse = (wide_t(1) << (POWER_POINT + INVERSE_POINT)) / total;
    for (int j = 0; j < N; ++j) {
#pragma HLS PIPELINE II = 1
        const wide_t next = wide_t(z[j]);
        const wide_t part = next > largest ? wide_t(0) : largest - next;
        p[j] = from_mantissa<prob_t>(shifted(mantissa(power(part)) * inverse,
                                             POWER_POINT + INVERSE_POINT - PROB_POINT));
    }
}

}  // namespace mtl

#endif
