// The next token of each row, in the order of transformers' logits processors: repetition penalty, no-repeat n-gram,
// temperature, top-k, top-p, then a draw by inverting the distribution function, in the order of token ids, at a random
// number that depends on the row's seed and position alone.
//
// Nothing is sorted: the least probability that stays is found digit by digit, as in a radix sort.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "arguments.h"

namespace {

constexpr int32_t NO_TOKEN = -1;
constexpr float NOTHING = -std::numeric_limits<float>::infinity();

struct Level {
    int shift, digits;
};

constexpr Level LEVELS[] = {{20, 4096}, {8, 4096}, {0, 256}};

// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t word) {
    word += 0x9E3779B97F4A7C15u;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
    return word ^ (word >> 31);
}

double uniform(uint64_t seed, uint64_t position) { return static_cast<double>(mix(mix(seed) + position) >> 11) * 0x1p-53; }

uint32_t bits_of(float weight) {
    uint32_t bits;
    std::memcpy(&bits, &weight, sizeof bits);
    return bits;
}

// The weights that stay: those above `least`, and of those equal to it the first `ties`.
struct Cut {
    float least = 0;
    int64_t ties = std::numeric_limits<int64_t>::max();
    double mass = 0;  // of all that stay
};

class Sampler {
  public:
    explicit Sampler(int64_t vocabulary) : vocabulary_(vocabulary) {}

    template <typename T>
    int32_t sample(const T *logits, const DrawRow &draw, float *logprob) {
        if (!draw.tokens && draw.temperature == 0 && !draw.wants_logprob) return most_likely(logits);
        widen(logits);
        const float normalizer = draw.wants_logprob ? log_sum() : 0;
        look_back(draw);
        float best = NOTHING;
        int32_t chosen = NO_TOKEN;
        if (!find_best(&best, &chosen)) return NO_TOKEN;
        if (draw.temperature > 0) chosen = draw_one(draw, best);
        float of_chosen[1];
        store_some(of_chosen, load_some(logits + chosen, 1), 1);
        *logprob = of_chosen[0] - normalizer;
        return chosen;
    }

  private:
    // Greedy choice, which needs no copy of the scores. Two searches at once wait less for each other's comparisons.
    template <typename T>
    int32_t most_likely(const T *logits) const {
        Vector most[2] = {all(NOTHING), all(NOTHING)};
        Integers where[2] = {}, none = {};
        for (int64_t at = 0; at < vocabulary_; at += 2 * LANES)
            for (int i = 0; i < 2; i++) {
                const int64_t from = at + i * LANES;
                if (from >= vocabulary_) break;
                const Vector found = scores_at(logits, from);
                const Integers better = found > most[i];
                most[i] = better ? found : most[i];
                where[i] = better ? Integers{} + static_cast<int32_t>(from) : where[i];
                none |= found != found;
            }
        const float best = std::max(maximum(most[0]), maximum(most[1]));
        if (any(none) || !std::isfinite(best)) return NO_TOKEN;
        int32_t first = std::numeric_limits<int32_t>::max();
        for (int i = 0; i < 2; i++)
            for (int lane = 0; lane < LANES; lane++)
                if (most[i][lane] == best) first = std::min(first, where[i][lane] + lane);
        return first;
    }

    template <typename T>
    Vector scores_at(const T *logits, int64_t at) const {
        const int64_t left = vocabulary_ - at;
        if (left >= LANES) return load(logits + at);
        return ORDER < static_cast<int>(left) ? load_some(logits + at, static_cast<int>(left)) : all(NOTHING);
    }

    template <typename T>
    void widen(const T *logits) {
        scores_.resize((vocabulary_ + LANES - 1) / LANES * LANES);
        for (int64_t at = 0; at < vocabulary_; at += LANES) store(&scores_[at], scores_at(logits, at));
    }

    float log_sum() const {
        Vector most = all(NOTHING);
        for (size_t at = 0; at < scores_.size(); at += LANES) {
            const Vector found = load(&scores_[at]);
            most = found > most ? found : most;
        }
        const float top = maximum(most);
        double total = 0;
        for (size_t at = 0; at < scores_.size(); at += LANES) total += sum(exponential(load(&scores_[at]) - top));
        return top + static_cast<float>(std::log(total));
    }

    void look_back(const DrawRow &draw) {
        if (!draw.tokens) return;
        if (draw.penalty != 1.0f) {
            seen_.assign(draw.tokens, draw.tokens + draw.count);
            std::sort(seen_.begin(), seen_.end());
            seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
            for (const int32_t token : seen_) {
                if (token >= vocabulary_) continue;  // an embedding may know more tokens than the output layer
                float &score = scores_[token];
                score = score < 0 ? score * draw.penalty : score / draw.penalty;
            }
        }
        const int64_t size = draw.ngram, last = draw.count - size + 1;
        if (size == 0) return;
        for (int64_t at = 0; at < last; at++)
            if (const int32_t token = draw.tokens[at + size - 1];
                token < vocabulary_ && std::equal(draw.tokens + at, draw.tokens + at + size - 1, draw.tokens + last))
                scores_[token] = NOTHING;
    }

    // The highest score and the first token that has it; false where a score is no number or there is no finite one.
    bool find_best(float *best, int32_t *token) const {
        Vector most = all(NOTHING), check = {};
        for (size_t at = 0; at < scores_.size(); at += LANES) {
            const Vector found = load(&scores_[at]);
            most = found > most ? found : most;
            check = found != found ? found : check;
        }
        *best = maximum(most);
        if (sum(check) != 0 || std::isnan(sum(check)) || !std::isfinite(*best)) return false;
        *token = static_cast<int32_t>(std::find(scores_.begin(), scores_.end(), *best) - scores_.begin());
        return true;
    }

    int32_t draw_one(const DrawRow &draw, float best) {
        // The best weighs 1; tokens that would weigh less than e^-87 count for nothing.
        const float heat = 1.0f / draw.temperature;
        double total = 0;
        for (size_t at = 0; at < scores_.size(); at += LANES) {
            const Vector weight = exponential((load(&scores_[at]) - best) * heat);
            store(&scores_[at], weight);
            total += sum(weight);
        }
        Cut cut;
        cut.mass = total;
        if (draw.top_k > 0 && draw.top_k < vocabulary_) {
            gather(0);
            cut = select<false>(draw.top_k);
        }
        if (draw.top_p < 1.0f) {
            // All that weigh less together lack more than top_p leaves out, so none of them can stay.
            const double out = (1.0 - static_cast<double>(draw.top_p)) * cut.mass / static_cast<double>(vocabulary_);
            gather(std::max(cut.least, static_cast<float>(out * 0.999)));
            cut = select<true>(static_cast<double>(draw.top_p) * cut.mass);
        }
        return invert(cut, uniform(draw.seed, draw.position) * cut.mass);
    }

    // The weights from `least` on become the candidates.
    void gather(float least) {
        candidates_.clear();
        const Vector bound = all(std::max(least, std::numeric_limits<float>::min()));
        for (size_t at = 0; at < scores_.size(); at += LANES) {
            const Integers enough = load(&scores_[at]) >= bound;
            if (!any(enough)) continue;
            for (int i = 0; i < LANES; i++)
                if (enough[i]) candidates_.push_back(bits_of(scores_[at + i]));
        }
    }

    // The least weight that is needed for `wanted` candidates, or for `wanted` of their mass, taking the heaviest first.
    template <bool BY_MASS>
    Cut select(double wanted) {
        double above = 0;
        uint32_t prefix = 0;
        for (const auto &[shift, digits] : LEVELS) {
            std::fill_n(histogram_, digits, 0.0);
            for (const uint32_t bits : candidates_) {
                float weight;
                std::memcpy(&weight, &bits, sizeof weight);
                histogram_[(bits >> shift) & (digits - 1)] += BY_MASS ? weight : 1.0;
            }
            int digit = digits - 1, lowest = -1;
            for (; digit >= 0; digit--) {
                if (histogram_[digit] == 0) continue;
                lowest = digit;
                if (above + histogram_[digit] >= wanted) break;
                above += histogram_[digit];
            }
            if (digit < 0) {  // sums are rounded: all stay
                digit = std::max(lowest, 0);
                above -= histogram_[digit];
            }
            prefix |= static_cast<uint32_t>(digit) << shift;
            const uint32_t known = prefix >> shift;
            candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                             [=](uint32_t bits) { return bits >> shift != known; }),
                              candidates_.end());
        }
        Cut cut;
        std::memcpy(&cut.least, &prefix, sizeof prefix);
        const int64_t equal = static_cast<int64_t>(candidates_.size());
        cut.ties = equal;  // top-k keeps all that are as probable as the last
        if (BY_MASS) {
            const double needed = std::ceil((wanted - above) / cut.least);
            cut.ties = std::clamp<int64_t>(static_cast<int64_t>(std::min(needed, 1e9)), 1, std::max<int64_t>(equal, 1));
        }
        cut.mass = BY_MASS ? above + static_cast<double>(cut.ties) * cut.least : mass_from(cut.least);
        return cut;
    }

    double mass_from(float least) const {
        double total = 0;
        for (size_t at = 0; at < scores_.size(); at += LANES) {
            const Vector weight = load(&scores_[at]);
            total += sum(weight >= least ? weight : Vector{});
        }
        return total;
    }

    int32_t invert(const Cut &cut, double target) const {
        double reached = 0;
        int64_t ties = cut.ties;
        int32_t last = NO_TOKEN;
        for (size_t at = 0; at < scores_.size(); at += LANES) {
            const Vector weight = load(&scores_[at]);
            const double block = sum(weight >= cut.least ? weight : Vector{});
            // Far from the target a block is skipped whole; blocks with ties at the edge are looked at one by one.
            if (reached + block <= target && (cut.least == 0 || !any(weight == cut.least))) {
                reached += block;
                continue;
            }
            for (int i = 0; i < LANES; i++) {
                if (weight[i] < cut.least || weight[i] == 0 || (weight[i] == cut.least && ties-- <= 0)) continue;
                reached += weight[i];
                last = static_cast<int32_t>(at) + i;
                if (reached > target) return last;
            }
        }
        return last == NO_TOKEN ? heaviest() : last;
    }

    int32_t heaviest() const {
        return static_cast<int32_t>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
    }

    int64_t vocabulary_;
    std::vector<float> scores_;
    std::vector<uint32_t> candidates_;
    std::vector<int32_t> seen_;
    double histogram_[4096];
};

template <typename T>
void sample_all(const T *logits, int64_t rows, int64_t vocabulary, const DrawRow *draws, int32_t *tokens,
                float *logprobs, int32_t threads) {
#pragma omp parallel num_threads(threads)
    {
        Sampler sampler(vocabulary);
#pragma omp for schedule(dynamic, 1)
        for (int64_t row = 0; row < rows; row++)
            tokens[row] = sampler.sample(logits + row * vocabulary, draws[row], logprobs + row);
    }
}

}  // namespace

// One token for each row of `logits` [rows, vocabulary], -1 where no choice is possible; its log-probability under the
// model alone, where the row asks for it.
extern "C" void sample_float32(const float *logits, int64_t rows, int64_t vocabulary, const DrawRow *draws,
                               int32_t *tokens, float *logprobs, int32_t threads) {
    sample_all(logits, rows, vocabulary, draws, tokens, logprobs, threads);
}
extern "C" void sample_bfloat16(const BFloat16 *logits, int64_t rows, int64_t vocabulary, const DrawRow *draws,
                                int32_t *tokens, float *logprobs, int32_t threads) {
    sample_all(logits, rows, vocabulary, draws, tokens, logprobs, threads);
}
