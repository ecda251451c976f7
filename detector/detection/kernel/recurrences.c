/* From what a row's window says to its score, its threshold and its episode: sensor by sensor, row after row.

   One record of cells is one sensor; a row is one call. Nothing here knows other sensors, batches or blocks, so a row's
   result cannot depend on them. Each function has a twin of its name in Python, which explains it, and does the same
   operations in the same order:

       the sections below                      their twins
       windows                                 detection/signals.py, detection/kernel/interpreted.py
       several channels together               detection/views.py
       averages, adaptive scale, score         detection/scale.py, detection/score.py
       after a long fault                      detection/faultmemory.py
       what counts by its deviation            detection/deviation.py
       a value that sticks                     detection/stillness.py
       a level that moves away slowly          detection/drifting.py
       noise that dies down                    detection/quietness.py
       n of m, the threshold                   detection/threshold.py
       episodes                                detection/episodes.py
       passes over the rows of many sensors    detection/kernel/interpreted.py

   A row may lack a channel: NaN in its errors, squares and values. That channel's averages stay, and its signals neither
   count nor are learnt.

   Built without contraction and without fast-math, so that every operation is rounded by itself, on every processor.
   Comparisons are written so that what is not a number goes the same way in both languages. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef KERNEL_DIGEST
#define KERNEL_DIGEST ""
#endif

/* Compiled twice by a compiler that can: for any processor, and for one with wider vectors. Which of them runs shows when
   the library is loaded; it changes no bit. What such a function calls has to become part of it. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define ALSO_WIDE __attribute__((target_clones("default", "avx2")))
#else
#define ALSO_WIDE
#endif
#define PART static inline __attribute__((always_inline))

enum { RESERVOIR = 8, QUIET_ROWS = 100, LEARNT_ROWS = 300, COLD_ROWS = 50, CALM_ROWS = 50, PATIENCE = 8000 };
enum { UNLEARNT = 12, HABIT = 8, LONG_AGO = 10000000 };
enum { OPENED = 1, CLOSED = 2, LEARNT = 3 };
enum { REMEMBERED = 4 };
enum { SETTLED = 500 };
enum { WINDOW = 100, LANES = 20, ROOM = 512 };
enum { LINE = 64, AHEAD = 8 }; /* bytes of a cache's line; rows ahead of which windows are fetched */
enum { VIEWS = 2, COMPONENTS = 4, ROUNDS = 32 };

static const double PREDICTION_RATE = 2.0 / 51, LEVEL_RATE = 2.0 / 41, ADAPTIVE_RATE = 2.0 / 8001, LEAN_RATE = 2.0 / 101;
static const double LEARNING_LIMIT = 5.0, MACHINE_LIMIT = 4.0, TINY = 1e-6, Z_LIMIT = 1e4;
static const double FLOOR_V = -2.5, TINY_SCORE = 1e-9;
static const double PRIOR_WEIGHT = 15.0, PRIOR_SCALE = 0.35, AIM = 3.0, AIM_ROWS = 1.0 / 3, YOUNG_CAP = 3.0;
static const double CREDIT_FREE = 3.0, CREDIT_MIN = -4.0, FLOOR_SPEED = 0.07, CREDIT_MAX = 3.0 + 1 / 0.07;
static const double STRICT = 1e4, FREE_POWER = 0.25, SPEED_POWER = -0.75, LIFT = 0.4, PEAK_CAP = 1.5;
static const double QUICK_RATE = 2.0 / 201, SLOW_RATE = 2.0 / 1001, FARTHEST = 5.0, LEARNING = 2.0, BEYOND = 8.0;
static const double NOISE_RATE = 2.0 / 151, SINKING_RATE = 2.0 / 1001, RISING_RATE = 2.0 / 16001, SILENCE = 1e-12;
static const double LARGEST = 2.0;
static const double MOST_RULED = 20.0;
static const float LONG_STILL = 1e7f;
static const double REGULAR_BAND = 0.2;
static const double LN_2 = 0.6931471805599453;

/* The cells of a sensor, as `cells_of` in cells.py lays them out; behind them its arrays, see `take_up`. */
typedef struct {
    double worst_zz, held_error, count, score, budget, horizon, rows, credit, peaks[RESERVOIR];
    double forgotten, pending, peak, close_level;
    int64_t completions, peaks_seen, loud_time, ended;
    int32_t quiet, unlearnt_rows, unlearnt_age[UNLEARNT];
    float unlearnt[UNLEARNT];
    int16_t high, cold, kept_rows, calm, peaks_kept, pending_age;
    uint8_t kept, open, muted, hold, excused;
} cells;

/* What a person asked for of a sensor, as RULE in cells.py. */
typedef struct {
    int64_t n, m, close_after, deviates;
    double direction, absolute, relative;
} rule;

/* What an episode came to in the reservoir and the credit, and what a peak did to it, as in EVENT. */
typedef struct {
    double entered, aside, charged, shift, habit, most, left_out[REMEMBERED];
} lesson;

/* An opening (level: the ln threshold), a closing (level: the peak) or a peak of quiet rows, as EVENT in cells.py. */
typedef struct {
    int64_t at, row, kind, ended;
    double level;
    lesson lesson;
} event;

/* Where the cells of a column lie, by slot, and how many bytes apart. */
typedef struct {
    char *at;
    int64_t step;
} column;

/* The columns of windows and of what is forecast from them, as RINGS in cells.py. A window is a ring: `head` is where its
   oldest row lies and the next one goes. */
typedef struct {
    column values, times, imputed, head, ridge, bias;
} rings;

/* The columns that tell when a sensor's next row is due, as PACES in cells.py. */
typedef struct {
    column times, head, filled, regular, median, unfit, rules;
} paces;

/* How many channels and earlier scores a record has room for, and its size in bytes. */
typedef struct {
    int64_t channels, earlier, size;
} shape;

/* A sensor while its rows are dealt with: its cells, its arrays, and what follows from them and lasts some rows. */
typedef struct {
    cells *c;
    double *worst, *mean, *variance, *prediction, *level, *center, *scale, *usual, *lean, *recent, *relation;
    double *still_value, *drift_quick, *drift_slow, *drift_mean, *drift_variance, *noise_quick, *noise_slow;
    float *kept_mean, *kept_variance, *still_rows, *still_limit, *resolution, *drift_worst, *drift_worst_zz;
    float *noise_usual, *noise_hush, *typical, *components;
    const rule *rule;
    int channels, signals, earlier, places, together;
    double per_row, free, speed, base, excess, weight, ratio, forget;
    lesson lesson;
} sensor;

static const lesson NOTHING = {
    NAN, NAN, 0.0, 0.0, INFINITY, INFINITY, {-INFINITY, -INFINITY, -INFINITY, -INFINITY}};

static inline double larger(double a, double b) { return a >= b || a != a ? a : b; }
static inline double smaller(double a, double b) { return a <= b || a != a ? a : b; }
PART double within(double x, double limit) { return x < -limit ? -limit : x > limit ? limit : x; }

/* In place, and only what its record says: to clear and to copy all of it takes as long as a row. */
PART void take_up(sensor *s, const shape *of, char *record, const rule *rule) {
    int channels = (int)of->channels, signals = 2 * channels + 1;
    s->c = (cells *)record;
    s->rule = rule;
    s->channels = channels;
    s->earlier = (int)of->earlier;
    s->worst = (double *)(record + sizeof(cells));
    s->mean = s->worst + signals;
    s->variance = s->mean + signals;
    s->prediction = s->variance + signals;
    s->level = s->prediction + channels;
    s->center = s->level + channels;
    s->scale = s->center + channels;
    s->usual = s->scale + channels;
    s->lean = s->usual + channels;
    s->still_value = s->lean + channels;
    s->drift_quick = s->still_value + channels;
    s->drift_slow = s->drift_quick + channels;
    s->drift_mean = s->drift_slow + channels;
    s->drift_variance = s->drift_mean + channels;
    s->noise_quick = s->drift_variance + channels;
    s->noise_slow = s->noise_quick + channels;
    s->recent = s->noise_slow + channels;
    s->relation = s->recent + s->earlier;
    s->kept_mean = (float *)(s->relation + (channels > 1));
    s->kept_variance = s->kept_mean + signals;
    s->still_rows = s->kept_variance + signals;
    s->still_limit = s->still_rows + channels;
    s->resolution = s->still_limit + channels;
    s->drift_worst = s->resolution + channels;
    s->drift_worst_zz = s->drift_worst + channels;
    s->noise_usual = s->drift_worst_zz + channels;
    s->noise_hush = s->noise_usual + channels;
    s->typical = s->noise_hush + channels;
    s->components = s->typical + (channels > 1 ? 2 * channels + 2 : 0);
    s->places = signals;
    s->together = channels > 1 && s->typical[0] == s->typical[0];
    s->signals = s->together ? VIEWS : signals;
}

/* -- windows ------------------------------------------------------------------------------------------------------ */

/* Rows of a sensor one behind the other, standardised: `z` by channel, `narrow` as the model takes them. */
typedef struct {
    double *z, *forecast;
    float *narrow;
    int64_t channels, end;
} strip;

PART char *cell(column of, int64_t slot) { return of.at + slot * of.step; }

/* The sum of LANES sums, always in this order. */
PART double summed(const double *lanes) {
    double half[LANES / 2], quarter[LANES / 4];
    for (int i = 0; i < LANES / 2; i++) half[i] = lanes[i] + lanes[i + LANES / 2];
    for (int i = 0; i < LANES / 4; i++) quarter[i] = half[i] + half[i + LANES / 4];
    return quarter[0] + quarter[1] + quarter[2] + quarter[3] + quarter[4];
}

/* Room for more rows; of those that are there no window needs more than the newest 99. */
PART void make_room(strip *of) {
    if (of->end < ROOM) return;
    int64_t kept = WINDOW - 1, from = of->end - kept;
    for (int64_t c = 0; c < of->channels; c++) memmove(of->z + c * ROOM, of->z + c * ROOM + from, kept * sizeof(double));
    memmove(of->narrow, of->narrow + from * of->channels, kept * of->channels * sizeof(float));
    of->end = kept;
}

PART void append(strip *of, const sensor *s, const double *values, int64_t count) {
    for (int64_t done = 0, some; done < count; done += some) {
        make_room(of);
        some = count - done < ROOM - of->end ? count - done : ROOM - of->end;
        for (int64_t c = 0; c < of->channels; c++) {
            double *z = of->z + c * ROOM + of->end, center = s->center[c], scale = s->scale[c];
            const double *from = values + done * of->channels + c;
            float *narrow = of->narrow + of->end * of->channels + c;
            for (int64_t i = 0; i < some; i++) z[i] = within((from[i * of->channels] - center) / scale, Z_LIMIT);
            for (int64_t i = 0; i < some; i++) narrow[i * of->channels] = (float)z[i];
        }
        of->end += some;
    }
}

/* The rows of a window from `back` rows before its newest end on, oldest first. */
PART void append_ring(strip *of, const sensor *s, const rings *from, int64_t slot, int64_t back) {
    const double *values = (const double *)cell(from->values, slot);
    int64_t begin = (*(uint8_t *)cell(from->head, slot) + WINDOW - back) % WINDOW;
    int64_t straight = back < WINDOW - begin ? back : WINDOW - begin;
    append(of, s, values + begin * of->channels, straight);
    append(of, s, values, back - straight);
}

/* Ask for what a sensor's windows are made of before it is needed: of many sensors it lies in no cache. */
PART void fetch(const rings *from, int64_t slot, int64_t channels) {
#if defined(__GNUC__)
    const char *values = cell(from->values, slot), *ridge = cell(from->ridge, slot);
    for (int64_t i = 0; i < WINDOW * channels * (int64_t)sizeof(double); i += LINE) __builtin_prefetch(values + i);
    for (int64_t i = 0; i < (WINDOW - 1) * channels * (int64_t)sizeof(float); i += LINE) __builtin_prefetch(ridge + i);
#endif
    (void)from, (void)slot, (void)channels;
}

PART void begin_strip(strip *of, const rings *from, int64_t slot) {
    const float *ridge = (const float *)cell(from->ridge, slot);
    of->end = 0;
    for (int64_t c = 0; c < of->channels; c++) {
        double *forecast = of->forecast + c * WINDOW;
        for (int i = 0; i < WINDOW - 1; i++) forecast[i] = ridge[c * (WINDOW - 1) + i];
        forecast[WINDOW - 1] = 0.0;
    }
}

PART double prediction_error(const double *window, const double *forecast, double bias) {
    double lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = window[i] * forecast[i];
    for (int from = LANES; from < WINDOW; from += LANES)
        for (int i = 0; i < LANES; i++) lanes[i] += window[from + i] * forecast[from + i];
    double error = summed(lanes);
    error += bias;
    error -= window[WINDOW - 1];
    return error * error;
}

/* -- intervals ----------------------------------------------------------------------------------------------------- */

PART int64_t newest_time(const paces *of, int64_t slot) {
    return ((const int64_t *)cell(of->times, slot))[(*(uint8_t *)cell(of->head, slot) + WINDOW - 1) % WINDOW];
}

/* -- averages, adaptive scale, score ---------------------------------------------------------------------------- */

PART void move(double *average, double x, double begun, double rate) {
    double now = *average != *average ? begun : *average;
    *average = now + rate * (x - now);
}

PART int missing(double x) { return x != x; }

PART void fill(sensor *s, const double *squares, int64_t step) {
    for (int i = 0; i < s->channels; i++) {
        double x = squares[i * step];
        if (!missing(x)) move(&s->level[i], x, x, LEVEL_RATE);
    }
}

/* -- several channels together ----------------------------------------------------------------------------------- */

PART double share(const double *signals, const float *typical, int channels) {
    double total = 0.0;
    int count = 0;
    for (int i = 0; i < channels; i++)
        if (typical[i] > 0.0f && !missing(signals[i])) total += signals[i] / (double)typical[i], count++;
    return count ? total / (double)count : NAN;
}

PART double of_components(const sensor *s, const double *parts, int i) {
    double rebuilt = 0.0;
    for (int k = 0; k < COMPONENTS; k++) rebuilt += (double)s->components[k * s->channels + i] * parts[k];
    return rebuilt;
}

PART double relation_error(const sensor *s, const double *values) {
    int channels = s->channels, count = 0;
    double z[channels], parts[COMPONENTS], total = 0.0;
    for (int i = 0; i < channels; i++) {
        z[i] = missing(values[i]) ? 0.0 : within((values[i] - s->center[i]) / s->scale[i], Z_LIMIT);
        count += !missing(values[i]);
    }
    for (int k = 0; k < COMPONENTS; k++) {
        parts[k] = 0.0;
        for (int i = 0; i < channels; i++) parts[k] += (double)s->components[k * channels + i] * z[i];
    }
    for (int round = 0; round < ROUNDS && count < channels; round++)
        for (int i = 0; i < channels; i++) {
            if (!missing(values[i])) continue;
            double step = of_components(s, parts, i) - z[i];
            z[i] += step;
            for (int k = 0; k < COMPONENTS; k++) parts[k] += (double)s->components[k * channels + i] * step;
        }
    for (int i = 0; i < channels; i++) {
        if (missing(values[i])) continue;
        double error = z[i] - of_components(s, parts, i);
        total += error * error;
    }
    return count ? total / (double)count : NAN;
}

/* In place of the signals of the channels come the views. */
PART void views_of(sensor *s, const double *values, double *signals) {
    static const float alike[] = {1.0f, 1.0f, 1.0f};
    int channels = s->channels;
    const float *typical = s->typical;
    double error = relation_error(s, values), usual = (double)typical[2 * channels + 1];
    if (!missing(error)) move(s->relation, error, usual, PREDICTION_RATE);
    double parts[] = {
        isinf(typical[channels]) ? 1.0 : signals[channels] / (double)typical[channels],
        share(signals + channels + 1, typical + channels + 1, channels),
        missing(error) ? error : *s->relation / usual,
    };
    signals[0] = share(signals, typical, channels);
    signals[1] = share(parts, alike, 3);
}

/* -- one row's signals, its score -------------------------------------------------------------------------------- */

PART double begun(const sensor *s, int i, double error) {
    if (s->together) return s->typical[i] != 0.0f ? (double)s->typical[i] : error;
    return s->mean[i];
}

PART void signals_of(sensor *s, const double *raw, int64_t step, double *error, const double *values,
                       double *signals) {
    int channels = s->channels;
    for (int i = 0; i < channels; i++) {
        double x = raw[i * step];
        if (!missing(x)) move(&s->prediction[i], x, begun(s, i, x), PREDICTION_RATE);
        signals[i] = missing(x) ? NAN : s->prediction[i];
    }
    if (*error != *error) *error = s->c->held_error;
    s->c->held_error = signals[channels] = *error;
    s->c->completions += 1;
    const double *squares = raw + channels * step;
    fill(s, squares, step);
    for (int i = 0; i < channels; i++) signals[channels + 1 + i] = missing(squares[i * step]) ? NAN : s->level[i];
    if (s->together) views_of(s, values, signals);
}

PART double deviation(const sensor *s, int i, double signal, double mean, double unit) {
    return isinf(s->worst[i]) && !missing(signal) ? 0.0 : (signal - mean) / unit;
}

PART double on_frozen_scale(const sensor *s, const double *signals) {
    double most = -INFINITY;
    for (int i = 0; i < s->signals; i++)
        if (!missing(signals[i])) most = larger(signals[i] / s->worst[i], most);
    return most;
}

PART double on_adaptive_scale(const sensor *s, const double *zz) {
    double most = -INFINITY;
    for (int i = 0; i < s->signals; i++)
        if (!missing(zz[i])) most = larger(zz[i], most);
    return larger(most / s->c->worst_zz, 0.0);
}

PART void compare(const sensor *s, const double *signals, double *zz, double *unit) {
    for (int i = 0; i < s->signals; i++) {
        unit[i] = sqrt(s->variance[i]) + TINY;
        zz[i] = deviation(s, i, signals[i], s->mean[i], unit[i]);
    }
}

PART void learn(sensor *s, const double *zz, const double *unit) {
    s->c->count += 1.0;
    double rate = larger(ADAPTIVE_RATE, 1.0 / s->c->count), keep = 1.0 - rate;
    double limit = s->together ? MACHINE_LIMIT : LEARNING_LIMIT;
    for (int i = 0; i < s->signals; i++) {
        if (missing(zz[i])) continue;
        double step = within(zz[i], limit) * unit[i], gain = rate * step;
        s->mean[i] += gain;
        s->variance[i] = (s->variance[i] + gain * step) * keep;
    }
}

/* -- after a long fault ------------------------------------------------------------------------------------------ */

PART int watch(sensor *s, const double *signals) {
    cells *c = s->c;
    double zz[s->signals];
    for (int i = 0; i < s->signals; i++)
        zz[i] = deviation(s, i, signals[i], s->kept_mean[i], sqrt((double)s->kept_variance[i]) + TINY);
    c->calm = on_adaptive_scale(s, zz) < 1.0 ? c->calm + 1 : 0;
    c->kept_rows += 1;
    int back = c->calm >= CALM_ROWS;
    if (back)
        for (int i = 0; i < s->places; i++) s->mean[i] = s->kept_mean[i], s->variance[i] = s->kept_variance[i];
    if (back || c->kept_rows >= PATIENCE) c->kept = 0;
    return back;
}

PART int remember(sensor *s, int high, const double *signals) {
    cells *c = s->c;
    int held = c->kept;
    if (high && !held) c->high += 1;
    c->cold = high || held || c->high == 0 ? 0 : c->cold + 1;
    if (c->cold >= COLD_ROWS) c->high = c->cold = 0;
    int back = held && watch(s, signals);
    if (c->high > LEARNT_ROWS) {
        for (int i = 0; i < s->places; i++) s->kept_mean[i] = (float)s->mean[i], s->kept_variance[i] = (float)s->variance[i];
        c->kept = 1;
        c->high = c->cold = c->kept_rows = c->calm = 0;
    }
    return back;
}

PART double score_row(sensor *s, const double *signals, int inside) {
    double zz[s->signals], unit[s->signals];
    compare(s, signals, zz, unit);
    double u = smaller(on_frozen_scale(s, signals), on_adaptive_scale(s, zz));
    int high = u >= 1.0;
    if ((high || s->c->high || s->c->kept) && remember(s, high, signals)) compare(s, signals, zz, unit);
    if (!(high && (inside || (s->together && !s->c->kept)))) learn(s, zz, unit);
    return u;
}

/* -- what counts by its deviation -------------------------------------------------------------------------------- */

PART int deviates(sensor *s, const double *values, int unlearnt) {
    double most = -1.0, off = 0.0, side = 0.0, usual = 0.0;
    for (int i = 0; i < s->channels; i++) {
        if (missing(values[i])) continue;
        double now = values[i] - s->usual[i], limit = LEARNING_LIMIT * s->scale[i];
        move(&s->lean[i], now, now, LEAN_RATE);
        if (!unlearnt) s->usual[i] += ADAPTIVE_RATE * within(now, limit);
        double leaning = fabs(s->lean[i]) / s->scale[i];
        if (leaning > most) most = leaning, side = s->lean[i], off = fabs(now), usual = fabs(values[i] - now);
    }
    const rule *r = s->rule;
    return off >= r->absolute && off >= r->relative * usual && (r->direction == 0.0 || r->direction * side > 0.0);
}

/* -- a value that sticks ------------------------------------------------------------------------------------------ */

PART double still(sensor *s, const double *values) {
    double most = 0.0;
    for (int i = 0; i < s->channels; i++) {
        if (missing(values[i])) continue;
        if (!(fabs(values[i] - s->still_value[i]) <= s->resolution[i]))
            s->still_value[i] = values[i], s->still_rows[i] = 1.0f;
        else if (s->still_rows[i] < LONG_STILL)
            s->still_rows[i] += 1.0f;
        if (s->still_rows[i] >= s->still_limit[i]) {
            double limits = (double)s->still_rows[i] / (double)s->still_limit[i];
            most = larger(smaller(limits * limits, MOST_RULED), most);
        }
    }
    return most;
}

/* -- a level that moves away slowly ------------------------------------------------------------------------------ */

PART double way_of(double quick, double slow) {
    double apart = quick - slow;
    return apart * quick > 0.0 ? smaller(fabs(apart), fabs(quick)) : 0.0;
}

PART double drift(sensor *s, const double *values, int inside) {
    int settled = s->c->completions >= SETTLED;
    double most = 0.0, row = settled ? 0.0 : 1.0 / (double)s->c->completions, rate = larger(ADAPTIVE_RATE, 1.0 / s->c->count);
    for (int i = 0; i < s->channels; i++) {
        if (missing(values[i]) || s->drift_worst[i] == INFINITY) continue;
        double z = within((values[i] - s->center[i]) / s->scale[i], FARTHEST);
        s->drift_quick[i] += larger(QUICK_RATE, row) * (z - s->drift_quick[i]);
        s->drift_slow[i] += larger(SLOW_RATE, row) * (z - s->drift_slow[i]);
        if (!settled) continue;
        double way = way_of(s->drift_quick[i], s->drift_slow[i]), square = way * way, worth = 0.0;
        double off = square - s->drift_mean[i], unit = sqrt(s->drift_variance[i]) + TINY;
        if (square >= s->drift_worst[i]) worth = smaller(square / s->drift_worst[i], off / unit / s->drift_worst_zz[i]);
        if (worth >= 1.0) most = larger(smaller(worth, MOST_RULED), most);
        if (inside && worth >= 1.0) continue;
        double step = within(off, (worth >= BEYOND ? LEARNING_LIMIT : LEARNING) * unit), gain = rate * step;
        s->drift_mean[i] += gain;
        s->drift_variance[i] = (s->drift_variance[i] + gain * step) * (1.0 - rate);
    }
    return most;
}

/* -- noise that dies down ---------------------------------------------------------------------------------------- */

PART double quiet(sensor *s, const double *errors, int64_t step, const double *values, int inside) {
    double most = 0.0;
    for (int i = 0; i < s->channels; i++) {
        double error = errors[i * step];
        if (missing(error) || missing(values[i]) || s->noise_hush[i] == INFINITY) continue;
        if (s->still_rows[i] >= s->still_limit[i]) continue;
        double quick = s->noise_quick[i] + NOISE_RATE * (smaller(error, LARGEST * (double)s->noise_usual[i]) - s->noise_quick[i]);
        s->noise_quick[i] = quick;
        double least = larger(quick, SILENCE), usual = smaller(s->noise_slow[i], (double)s->noise_usual[i]);
        int calm = usual >= (double)s->noise_hush[i] * least;
        if (calm) {
            double limits = log(usual / least) / log((double)s->noise_hush[i]);
            most = larger(smaller(limits * limits, MOST_RULED), most);
        }
        if (inside && calm) continue;
        double rate = quick < s->noise_slow[i] ? SINKING_RATE : RISING_RATE;
        s->noise_slow[i] += rate * (quick - s->noise_slow[i]);
    }
    return most;
}

/* -- n of m, the threshold --------------------------------------------------------------------------------------- */

PART double nth_largest(const double *last, int n, int m) {
    if (n == m) {
        double least = last[m - 1]; /* if any is no number, this one is none */
        for (int i = 0; i < m - 1; i++) least = last[i] < least ? last[i] : least;
        return least;
    }
    double sorted[m];
    int count = 0;
    for (int i = 0; i < m; i++) {
        if (last[i] != last[i]) continue;
        int at = count++;
        for (; at > 0 && sorted[at - 1] < last[i]; at--) sorted[at] = sorted[at - 1];
        sorted[at] = last[i];
    }
    return count < n ? NAN : sorted[n - 1];
}

PART double smallest_of_recent(sensor *s, double u) {
    int earlier = s->earlier, m = (int)s->rule->m;
    double last[earlier + 1];
    for (int i = 0; i < earlier; i++) last[i] = s->recent[i] != s->recent[i] ? u : s->recent[i];
    last[earlier] = u;
    memcpy(s->recent, last + 1, earlier * sizeof(double));
    return larger(log(larger(nth_largest(last + earlier + 1 - m, (int)s->rule->n, m), TINY_SCORE)), FLOOR_V);
}

PART void refresh(sensor *s) {
    cells *c = s->c;
    int64_t half = c->peaks_seen / 2, m = half > 1 ? half : 1;
    if (c->peaks_kept < m) m = c->peaks_kept;
    double over[RESERVOIR];
    s->base = c->peaks[m > 0 ? m - 1 : RESERVOIR - 1];
    for (int i = 0; i < RESERVOIR; i++) over[i] = i < m - 1 ? c->peaks[i] - s->base : 0.0;
    double excess = ((over[0] + over[1]) + (over[2] + over[3])) + ((over[4] + over[5]) + (over[6] + over[7]));
    s->weight = (double)(m - 1) + PRIOR_WEIGHT;
    s->excess = (excess + PRIOR_WEIGHT * PRIOR_SCALE) / s->weight;
    s->ratio = (double)m * c->budget;
    s->forget = s->excess / c->horizon;
}

PART void begin_thresholds(sensor *s) {
    double loose = smaller(s->c->budget / STRICT, 1.0);
    s->lesson = NOTHING;
    s->per_row = 1.0 / s->c->budget;
    s->free = loose < 1.0 ? CREDIT_FREE * pow(loose, FREE_POWER) : CREDIT_FREE;
    s->speed = loose < 1.0 ? FLOOR_SPEED * pow(loose, SPEED_POWER) : FLOOR_SPEED;
    refresh(s);
}

PART double return_level(const sensor *s) {
    double level = s->base - s->c->forgotten, ratio = s->c->rows != 0.0 ? s->ratio / s->c->rows : NAN;
    if (ratio > 1.0) {
        ratio /= 1.0 + (AIM - 1.0) * sqrt(smaller(s->c->rows * s->per_row / AIM_ROWS, 1.0));
        level += s->weight * s->excess * (pow(larger(ratio, 1.0), 1.0 / s->weight) - 1.0);
    }
    return level;
}

PART double end_of_tail(const sensor *s, double known) { return return_level(s) + PEAK_CAP * s->excess * known; }

PART void leave_out(lesson *lesson, double v) {
    int at = REMEMBERED - 1;
    if (!(v > lesson->left_out[at])) return;
    for (; at > 0 && lesson->left_out[at - 1] < v; at--) lesson->left_out[at] = lesson->left_out[at - 1];
    lesson->left_out[at] = v;
}

PART void insert_peak(sensor *s, double v) {
    cells *c = s->c;
    for (int i = 0; i < RESERVOIR; i++) c->peaks[i] -= c->forgotten;
    int at = RESERVOIR - 1;
    s->lesson.shift += c->forgotten;
    leave_out(&s->lesson, smaller(v, c->peaks[at]));
    c->forgotten = 0.0;
    if (v > c->peaks[at]) {
        for (; at > 0 && c->peaks[at - 1] < v; at--) c->peaks[at] = c->peaks[at - 1];
        c->peaks[at] = v;
    }
    c->peaks_seen += 1;
    if (c->peaks_kept < RESERVOIR) c->peaks_kept += 1;
    refresh(s);
}

PART double habit_of(const float *peaks) {
    double habit = INFINITY, least = INFINITY;
    for (int i = 0; i < UNLEARNT; i++) {
        int alike = 0;
        for (int j = 0; j < UNLEARNT; j++) alike += peaks[j] >= peaks[i] && peaks[j] <= peaks[i] + LN_2;
        if (alike >= HABIT && peaks[i] > -INFINITY) habit = smaller(peaks[i], habit);
        least = smaller(peaks[i], least);
    }
    return habit == INFINITY && least > -INFINITY ? least : habit;
}

PART void leave_unlearnt(sensor *s, double v) {
    cells *c = s->c;
    int oldest = 0, kept = 0;
    for (int i = 0; i < UNLEARNT; i++) {
        c->unlearnt_age[i] += c->unlearnt_rows;
        if (c->unlearnt_age[i] >= c->horizon || c->unlearnt_age[i] > LONG_AGO) c->unlearnt[i] = -INFINITY;
        if (c->unlearnt[i] == -INFINITY) c->unlearnt_age[i] = LONG_AGO;
        if (c->unlearnt_age[i] > c->unlearnt_age[oldest]) oldest = i;
    }
    c->unlearnt[oldest] = (float)v;
    c->unlearnt_age[oldest] = c->unlearnt_rows = 0;
    for (int i = 0; i < UNLEARNT; i++) kept += c->unlearnt[i] > -INFINITY;
    double habit = habit_of(c->unlearnt);
    s->lesson.habit = habit;
    s->lesson.most = kept == UNLEARNT ? INFINITY : habit + LN_2;
    for (int i = 0; i < UNLEARNT; i++)
        if (c->unlearnt[i] >= habit && (kept == UNLEARNT || c->unlearnt[i] <= habit + LN_2)) {
            insert_peak(s, smaller(c->unlearnt[i], habit + LN_2));
            c->unlearnt[i] = -INFINITY;
        }
}

PART void advance(sensor *s) {
    cells *c = s->c;
    if (c->unlearnt_rows < LONG_AGO) c->unlearnt_rows += 1;
    c->credit = smaller(c->credit + s->per_row, CREDIT_MAX);
    if (c->rows < c->horizon)
        c->rows += 1.0;
    else
        c->forgotten += s->forget;
}

PART double threshold(const sensor *s) {
    const cells *c = s->c;
    if (isinf(c->budget)) return 0.0;
    double level = return_level(s);
    if (c->rows < c->budget) level = smaller(level, log(YOUNG_CAP * c->budget / c->rows));
    double floor = -s->speed * larger(c->credit - s->free, 0.0);
    return larger(level, floor) + smaller(LIFT * larger(-c->credit, 0.0), LN_2);
}

PART void forget_pending(cells *c) {
    c->pending = -INFINITY;
    c->pending_age = 0;
}

PART void quiet_row(sensor *s, double v) {
    cells *c = s->c;
    c->pending_age += 1;
    if (v > c->pending) {
        c->pending = v;
        c->pending_age = 0;
    }
    if (c->pending_age >= QUIET_ROWS) {
        s->lesson = NOTHING;
        insert_peak(s, smaller(c->pending, end_of_tail(s, 1.0)));
        forget_pending(c);
    }
}

PART void spend(sensor *s, double peak) {
    cells *c = s->c;
    double credit = larger(c->credit - 1.0, CREDIT_MIN);
    int aside = peak > end_of_tail(s, smaller(c->rows * s->per_row, 1.0));
    s->lesson.charged = c->credit - credit;
    if (aside)
        s->lesson.aside = (float)peak;
    else
        s->lesson.entered = c->excused ? peak + c->forgotten : peak;
    if (c->excused) return;
    if (aside)
        leave_unlearnt(s, peak);
    else
        insert_peak(s, peak);
    c->credit = credit;
}

/* -- episodes ---------------------------------------------------------------------------------------------------- */

PART int end_episode(sensor *s) {
    cells *c = s->c;
    s->lesson = NOTHING;
    if (!c->muted) spend(s, c->peak);
    c->open = c->muted = c->excused = 0;
    c->ended = c->loud_time;
    return CLOSED;
}

PART int go_on(sensor *s, double v, int64_t time, int inside) {
    cells *c = s->c;
    if (v >= c->close_level) {
        c->quiet = 0;
        c->loud_time = time;
        c->muted = c->muted && inside;
    } else
        c->quiet += 1;
    c->peak = larger(c->peak, v);
    return c->quiet >= s->rule->close_after ? end_episode(s) : 0;
}

PART int open_episode(sensor *s, double v, double limit, int64_t time, int inside) {
    cells *c = s->c;
    c->open = 1;
    c->excused = 0;
    c->muted = inside;
    c->quiet = 0;
    c->peak = v;
    c->close_level = smaller(limit, 0.0);
    c->loud_time = time;
    return OPENED;
}

PART int judge_row(sensor *s, double v, int64_t time, int inside, double *limit) {
    cells *c = s->c;
    int what = 0;
    advance(s);
    *limit = threshold(s);
    int loud = v >= *limit;
    c->hold = c->hold && loud;
    int opens = loud && !c->open && !c->hold, busy = c->open || loud || (inside && v >= 0.0);
    if (busy) forget_pending(c);
    if (c->open)
        what = go_on(s, v, time, inside);
    else if (opens)
        what = open_episode(s, v, *limit, time, inside);
    if (!busy) quiet_row(s, v);
    return what;
}

/* -- passes over the rows of many sensors ------------------------------------------------------------------------ */

const char *kernel_digest(void) { return KERNEL_DIGEST; }

/* `slots`, `first`, `last` (n): whose rows first .. last - 1 are, at `times`; `uneven` (n) says of which sensor with a usable
   interval one before a row does not fit, or did not of late. */
void kernel_uneven(const paces *of, const int64_t *slots, const int64_t *first, const int64_t *last, int64_t n,
                   const int64_t *times, uint8_t *uneven) {
    for (int64_t at = 0; at < n; at++) {
        int64_t slot = slots[at], median = *(int64_t *)cell(of->median, slot), before = times[first[at]] - median;
        int odd = *(int16_t *)cell(of->unfit, slot) > 0;
        double limit = REGULAR_BAND * (double)median;
        if (*(int16_t *)cell(of->filled, slot) > 0) before = newest_time(of, slot);
        for (int64_t row = first[at]; row < last[at]; before = times[row++])
            odd |= fabs((double)(times[row] - before - median)) > limit;
        uneven[at] = *(uint8_t *)cell(of->regular, slot) && median > 0 && odd;
    }
}

/* Of the same rows (N): how many are `missing` before each; more than may be filled in is one of the `restarts`. The limits
   are by number of rules, of which there are `kinds`; the last ones have negative numbers, too. */
void kernel_missing(const paces *of, const int64_t *slots, const int64_t *first, const int64_t *last, int64_t n,
                    const int64_t *times, uint8_t *restarts, const int64_t *max_gap, const int64_t *max_fill,
                    int64_t kinds, int64_t *missing) {
    for (int64_t at = 0; at < n; at++) {
        int64_t slot = slots[at], rule = *(int16_t *)cell(of->rules, slot), before = times[first[at]];
        int64_t median = *(uint8_t *)cell(of->regular, slot) ? *(int64_t *)cell(of->median, slot) : 0;
        if (*(int16_t *)cell(of->filled, slot) > 0) before = newest_time(of, slot);
        if (rule < 0) rule += kinds;
        for (int64_t row = first[at]; row < last[at]; before = times[row++]) {
            int64_t gap = restarts[row] ? 0 : times[row] - before, count = 0;
            if (median > 0 && gap > 0) count = (2 * gap + median) / (2 * median) - 1;
            if (count < 0) count = 0;
            restarts[row] = restarts[row] || count > max_fill[rule] || gap > max_gap[rule];
            missing[row] = restarts[row] ? 0 : count;
        }
    }
}

/* `slots`, `begin` (n): whose rows those from `begin` on are, in `values` (R, C). `owner`, `source` (N): of each row that
   completes a window, its sensor, and where it lies in `values`. Of the rows from .. to - 1: `inputs` (to - from, 100, C)
   their windows; columns of `raw` (2 C, N) squared prediction errors and squared values. Returns 0 without memory. */
ALSO_WIDE
int64_t kernel_windows(const shape *of, char *records, const rings *ring, const int64_t *slots, const int64_t *begin,
                       const int64_t *owner, const int64_t *source, const double *values, double *raw, int64_t count,
                       int64_t from, int64_t to, float *inputs) {
    int64_t channels = of->channels, at = -1, next = 0;
    char *room = malloc(channels * (ROOM * (sizeof(double) + sizeof(float)) + WINDOW * sizeof(double)));
    if (!room) return 0;
    strip rows = {.z = (double *)room, .channels = channels};
    rows.forecast = rows.z + channels * ROOM;
    rows.narrow = (float *)(rows.forecast + channels * WINDOW);
    sensor s;
    for (int64_t row = from; row < to; row++) {
        if (owner[row] != at) {
            at = owner[row];
            if (row + AHEAD < to && owner[row + AHEAD] != at) fetch(ring, slots[owner[row + AHEAD]], channels);
            take_up(&s, of, records + at * of->size, NULL);
            begin_strip(&rows, ring, slots[at]);
            next = source[row] - (WINDOW - 1);
            if (next < begin[at]) {
                append_ring(&rows, &s, ring, slots[at], begin[at] - next);
                next = begin[at];
            }
        }
        append(&rows, &s, values + next * channels, source[row] + 1 - next);
        next = source[row] + 1;
        const double *bias = (const double *)cell(ring->bias, slots[at]);
        for (int64_t c = 0; c < channels; c++) {
            const double *window = rows.z + c * ROOM + rows.end - WINDOW;
            raw[c * count + row] = prediction_error(window, rows.forecast + c * WINDOW, bias[c]);
            raw[(channels + c) * count + row] = window[WINDOW - 1] * window[WINDOW - 1];
        }
        int64_t size = WINDOW * channels;
        memcpy(inputs + (row - from) * size, rows.narrow + (rows.end - WINDOW) * channels, size * sizeof(float));
    }
    free(room);
    return 1;
}

/* `inputs`, `outputs` (n, size); `weights` (size), a multiple of LANES. */
ALSO_WIDE
void kernel_rebuilt(const float *inputs, const float *outputs, const float *weights, int64_t n, int64_t size,
                    int64_t channels, double *errors) {
    for (int64_t row = 0; row < n; row++, inputs += size, outputs += size) {
        double lanes[LANES] = {0};
        for (int64_t from = 0; from < size; from += LANES)
            for (int i = 0; i < LANES; i++) {
                double error = (inputs[from + i] - outputs[from + i]) * weights[from + i];
                lanes[i] += error * error;
            }
        errors[row] = channels == 1 ? summed(lanes) : summed(lanes) / (double)channels;
    }
}

/* Rows begin .. end - 1 of each sensor, of which `imputed` were filled in, go into the windows of its slot. */
void kernel_push(const rings *ring, int64_t channels, const int64_t *slots, const int64_t *begin, const int64_t *end,
                 int64_t n, const double *values, const int64_t *times, const uint8_t *imputed) {
    for (int64_t at = 0; at < n; at++) {
        double *old = (double *)cell(ring->values, slots[at]);
        int64_t *moments = (int64_t *)cell(ring->times, slots[at]);
        uint8_t *bits = (uint8_t *)cell(ring->imputed, slots[at]), *head = (uint8_t *)cell(ring->head, slots[at]);
        int64_t row = end[at] - begin[at] > WINDOW ? end[at] - WINDOW : begin[at];
        int64_t place = (*head + (row - begin[at])) % WINDOW;
        for (; row < end[at]; row++) {
            uint8_t bit = 0x80 >> (place & 7);
            memcpy(old + place * channels, values + row * channels, channels * sizeof(double));
            moments[place] = times[row];
            bits[place >> 3] = imputed[row] ? bits[place >> 3] | bit : bits[place >> 3] & ~bit;
            if (++place == WINDOW) place = 0;
        }
        *head = (uint8_t)place;
    }
}

/* What turns n rows with the covariances `alike` (n) by distance into white noise: `white` (n, n), a row for each, by
   Durbin's recursion. `filter` holds what the newest row so far leaves open, of it and the rows before it. */
void kernel_whitening(const double *alike, int64_t n, double *white) {
    double filter[WINDOW] = {1.0}, open = alike[0];
    memset(white, 0, n * n * sizeof(double));
    for (int64_t row = 0; row < n; row++, white += n) {
        if (row > 0) {
            double sum = 0.0, part;
            for (int64_t back = 0; back < row; back++) sum += alike[row - back] * filter[back];
            part = -sum / open;
            for (int64_t i = 0, j = row; i <= j; i++, j--) {
                double newer = filter[i], older = filter[j];
                filter[i] = newer + part * older;
                filter[j] = older + part * newer;
            }
            open *= 1.0 - part * part;
        }
        for (int64_t back = 0; back <= row; back++) white[row - back] = filter[back] / sqrt(open);
    }
}

/* `first` (n + 1): where the rows of each sensor begin; `squares` (C, N). */
void kernel_fill(const shape *of, char *records, int64_t n, const int64_t *first, const double *squares) {
    for (int64_t at = 0; at < n; at++) {
        sensor s;
        take_up(&s, of, records + at * of->size, NULL);
        for (int64_t row = first[at]; row < first[at + 1]; row++) fill(&s, squares + row, first[n]);
    }
}

/* `channels` is 1 where a compiler can see it: it keeps the averages of one channel in registers. */
PART void score_rows(int channels, const shape *of, char *records, int64_t n, const int64_t *first, const rule *rules,
                     const double *raw, double *errors, const double *values, const uint8_t *inside, double *u,
                     double *calm, double *alarm, double *eligible) {
    double signals[2 * channels + 1];
    for (int64_t at = 0; at < n; at++) {
        sensor s;
        take_up(&s, of, records + at * of->size, rules + at);
        if (channels == 1) s.channels = 1, s.signals = s.places = 3, s.together = 0;
        for (int64_t row = first[at]; row < first[at + 1]; row++) {
            int here = inside && inside[row];
            const double *newest = values + row * s.channels;
            signals_of(&s, raw + row, first[n], errors + row, newest, signals);
            u[row] = score_row(&s, signals, here);
            double ruled = larger(still(&s, newest), drift(&s, newest, here));
            calm[row] = quiet(&s, raw + row, first[n], newest, here);
            s.c->score = eligible[row] = alarm[row] = larger(larger(u[row], ruled), calm[row]);
            if (s.rule->deviates && !deviates(&s, newest, here && u[row] >= 1.0)) eligible[row] = 0.0;
        }
    }
}

/* `first` (n + 1): where the rows of each sensor begin; `raw` (2 C, N), `values` (N, C), `inside` (N,) or NULL. */
ALSO_WIDE
void kernel_score(const shape *of, char *records, int64_t n, const int64_t *first, const rule *rules, const double *raw,
                  double *errors, const double *values, const uint8_t *inside, double *u, double *calm,
                  double *alarm, double *eligible) {
    if (of->channels == 1)
        score_rows(1, of, records, n, first, rules, raw, errors, values, inside, u, calm, alarm, eligible);
    else
        score_rows((int)of->channels, of, records, n, first, rules, raw, errors, values, inside, u, calm, alarm, eligible);
}

ALSO_WIDE
int64_t kernel_judge(const shape *of, char *records, int64_t n, const int64_t *first, const rule *rules,
                     const double *eligible, const int64_t *times, const uint8_t *inside, double *v, double *limits,
                     event *events) {
    int64_t count = 0;
    for (int64_t at = 0; at < n; at++) {
        sensor s;
        take_up(&s, of, records + at * of->size, rules + at);
        begin_thresholds(&s);
        for (int64_t row = first[at]; row < first[at + 1]; row++) {
            v[row] = smallest_of_recent(&s, eligible[row]);
            int64_t ended = s.c->ended, seen = s.c->peaks_seen;
            int what = judge_row(&s, v[row], times[row], inside && inside[row], limits + row);
            if (what == OPENED) events[count++] = (event){at, row, what, ended, limits[row], NOTHING};
            else if (what == CLOSED) events[count++] = (event){at, row, what, s.c->ended, s.c->peak, s.lesson};
            else if (s.c->peaks_seen != seen) events[count++] = (event){at, row, LEARNT, 0, 0.0, s.lesson};
        }
    }
    return count;
}
