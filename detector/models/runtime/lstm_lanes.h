/* lstm.c for vectors of one width: included once for each. An array of vectors is one of floats, (.., LANES). */

typedef struct {
    V p, q;
} NAME(Fraction);

static inline TARGET NAME(Fraction) NAME(tanh)(V x) {
    x = MAX(SPLAT(-LIMIT), MIN(SPLAT(LIMIT), x)); /* in this order what is no number stays none */
    V square = x * x, p = SPLAT(P[4]), q = square + SPLAT(Q[3]);
    for (int i = 3; i >= 0; i--) p = FMA(p, square, SPLAT(P[i]));
    for (int i = 2; i >= 0; i--) q = FMA(q, square, SPLAT(Q[i]));
    return (NAME(Fraction)){p * x, q};
}

/* One unit of one row: from the sums of its gates to its state, doubled; its memory is replaced. The fractions
   get a common denominator, because divisions take longest. */
static inline TARGET V NAME(cell)(V input, V forget, V candidate, V output, float *memory) {
    NAME(Fraction) i = NAME(tanh)(input), f = NAME(tanh)(forget), n = NAME(tanh)(candidate), o = NAME(tanh)(output);
    V both = i.q * n.q, added = (i.q + i.p) * n.p * f.q;
    V now = FMA((f.q + f.p) * LOAD(memory), both, added) / ((f.q + f.q) * both);
    NAME(Fraction) t = NAME(tanh)(now);
    STORE(memory, now);
    return (o.q + o.p) * t.p / (o.q * t.q);
}

static inline TARGET V NAME(activated)(V x, int64_t activation) {
    if (activation == LINEAR) return x;
    NAME(Fraction) t = NAME(tanh)(x);
    return activation == TANH ? t.p / t.q : (t.q + t.p) / (t.q + t.q);
}

/* -- many windows, one a lane: arrays are (.., BLOCK, LANES) ---------------------------------------------------- */

/* The sums of unit u's gates. `begin` (4, padded, ..): what they begin with; NULL: the bias. `read` (inputs, ..). */
static inline TARGET void NAME(sums)(
    const Model *model, const Layer *layer, int64_t u, const float *begin, const float *read, V sums[4][BLOCK]) {
    for (int g = 0; g < 4; g++)
        for (int b = 0; b < BLOCK; b++) {
            int64_t at = g * model->padded + u;
            sums[g][b] = begin ? LOAD(begin + (at * BLOCK + b) * LANES) : SPLAT(layer->bias[at]);
        }
    const float *weights = layer->by_unit + u * layer->inputs * 4;
    for (int64_t k = 0; k < layer->inputs; k++) {
        V x[BLOCK];
        for (int b = 0; b < BLOCK; b++) x[b] = LOAD(read + (k * BLOCK + b) * LANES);
        for (int g = 0; g < 4; g++) {
            V weight = SPLAT(*weights++);
            for (int b = 0; b < BLOCK; b++) sums[g][b] = FMA(weight, x[b], sums[g][b]);
        }
    }
}

/* One row of a layer: its `state` (units, ..) and its memory (units, ..), which the next row needs. */
static inline TARGET void NAME(row)(
    const Model *model, const Layer *layer, const float *begin, const float *read, float *memory, float *state) {
    for (int64_t u = 0; u < model->units; u++) {
        V sums[4][BLOCK];
        NAME(sums)(model, layer, u, begin, read, sums);
        for (int b = 0; b < BLOCK; b++) {
            int64_t at = (u * BLOCK + b) * LANES;
            STORE(state + at, NAME(cell)(sums[0][b], sums[1][b], sums[2][b], sums[3][b], memory + at));
        }
    }
}

/* At most BLOCK x LANES windows: `count` of them, at least one. */
static TARGET void NAME(many)(const Model *model, int64_t count, const float *windows, float *rebuilt, float *room) {
    enum { WIDTH = BLOCK * LANES };
    int64_t channels = model->channels, size = model->rows * channels, units = model->units;
    float *read = room, *next = read + (channels + units) * WIDTH, *memory = next + (channels + units) * WIDTH;
    float *begin = memory + units * WIDTH, made[WIDTH];
    memset(room, 0, (2 * (channels + units) + units) * WIDTH * sizeof *room);
    for (int64_t t = 0; t < model->rows; t++) {
        for (int64_t j = 0; j < channels; j++)
            for (int64_t w = 0; w < WIDTH; w++) /* lanes beyond the last window repeat it */
                read[j * WIDTH + w] = windows[(w < count ? w : count - 1) * size + t * channels + j];
        NAME(row)(model, &model->first, NULL, read, memory, next + channels * WIDTH);
        float *other = read;
        read = next, next = other;
    }
    for (int64_t u = 0; u < units; u++) {
        V sums[4][BLOCK];
        NAME(sums)(model, &model->code, u, NULL, read + channels * WIDTH, sums);
        for (int g = 0; g < 4; g++)
            for (int b = 0; b < BLOCK; b++)
                STORE(begin + ((g * model->padded + u) * BLOCK + b) * LANES, sums[g][b]);
    }
    memset(room, 0, (2 * (channels + units) + units) * WIDTH * sizeof *room);
    for (int64_t t = 0; t < model->rows; t++) {
        NAME(row)(model, &model->second, begin, read, memory, next);
        float *other = read;
        read = next, next = other;
        for (int64_t j = 0; j < channels; j++) {
            for (int b = 0; b < BLOCK; b++) {
                V sum = SPLAT(model->values_bias[j]);
                for (int64_t k = 0; k < units; k++)
                    sum = FMA(SPLAT(model->values[j * units + k]), LOAD(read + (k * BLOCK + b) * LANES), sum);
                STORE(made + b * LANES, NAME(activated)(sum, model->activation));
            }
            for (int64_t w = 0; w < count; w++) rebuilt[w * size + t * channels + j] = made[w];
        }
    }
}

/* -- one window, a unit a lane: arrays are (.., padded) --------------------------------------------------------- */

/* The sums of the gates of the units from u on, PAIR vectors of them. `begin` (4, padded), `read` (inputs). */
static inline TARGET void NAME(sums_of_one)(
    const Model *model, const Layer *layer, int64_t u, const float *begin, const float *read, V sums[4][PAIR]) {
    for (int g = 0; g < 4; g++)
        for (int b = 0; b < PAIR; b++) sums[g][b] = LOAD(begin + g * model->padded + u + b * LANES);
    const float *weights = layer->by_pair + u * layer->inputs * 4;
    for (int64_t k = 0; k < layer->inputs; k++) {
        V x = SPLAT(read[k]);
        for (int g = 0; g < 4; g++)
            for (int b = 0; b < PAIR; b++, weights += LANES) sums[g][b] = FMA(LOAD(weights), x, sums[g][b]);
    }
}

static inline TARGET void NAME(row_of_one)(
    const Model *model, const Layer *layer, const float *begin, const float *read, float *memory, float *state) {
    for (int64_t u = 0; u < model->padded; u += PAIR * LANES) {
        V sums[4][PAIR];
        NAME(sums_of_one)(model, layer, u, begin, read, sums);
        for (int b = 0; b < PAIR; b++) {
            int64_t at = u + b * LANES;
            STORE(state + at, NAME(cell)(sums[0][b], sums[1][b], sums[2][b], sums[3][b], memory + at));
        }
    }
}

static TARGET void NAME(one)(const Model *model, const float *window, float *rebuilt, float *room) {
    int64_t channels = model->channels, units = model->units, padded = model->padded;
    float *read = room, *next = read + channels + padded, *memory = next + channels + padded;
    float *begin = memory + padded, made[LANES];
    memset(room, 0, (2 * (channels + padded) + padded) * sizeof *room);
    for (int64_t t = 0; t < model->rows; t++) {
        memcpy(read, window + t * channels, channels * sizeof *read);
        NAME(row_of_one)(model, &model->first, model->first.bias, read, memory, next + channels);
        float *other = read;
        read = next, next = other;
    }
    for (int64_t u = 0; u < padded; u += PAIR * LANES) {
        V sums[4][PAIR];
        NAME(sums_of_one)(model, &model->code, u, model->code.bias, read + channels, sums);
        for (int g = 0; g < 4; g++)
            for (int b = 0; b < PAIR; b++) STORE(begin + g * padded + u + b * LANES, sums[g][b]);
    }
    memset(room, 0, (2 * (channels + padded) + padded) * sizeof *room);
    for (int64_t t = 0; t < model->rows; t++) {
        NAME(row_of_one)(model, &model->second, begin, read, memory, next);
        float *other = read;
        read = next, next = other;
        for (int64_t j = 0; j < channels; j++) {
            V sum = SPLAT(model->values_bias[j]);
            for (int64_t k = 0; k < units; k++) sum = FMA(SPLAT(model->values[j * units + k]), SPLAT(read[k]), sum);
            STORE(made, NAME(activated)(sum, model->activation));
            rebuilt[t * channels + j] = made[0];
        }
    }
}

static TARGET int64_t NAME(rebuild)(const Model *model, int64_t n, const float *windows, float *rebuilt) {
    enum { WIDTH = BLOCK * LANES };
    int64_t size = model->rows * model->channels;
    int64_t needed = (2 * (model->channels + model->padded) + 5 * model->padded) * WIDTH;
    float *room = aligned_alloc(64, (needed * sizeof *room + 63) / 64 * 64);
    if (!room) return 0;
    for (int64_t w = 0; w < n;) {
        int64_t count = n - w < WIDTH ? n - w : WIDTH;
        if (count < WORTH) count = 1, NAME(one)(model, windows + w * size, rebuilt + w * size, room);
        else NAME(many)(model, count, windows + w * size, rebuilt + w * size, room);
        w += count;
    }
    free(room);
    return 1;
}

#undef TARGET
#undef NAME
#undef V
#undef LANES
#undef BLOCK
#undef WORTH
#undef SPLAT
#undef FMA
#undef MIN
#undef MAX
#undef LOAD
#undef STORE
