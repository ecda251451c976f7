/* Plain readings, one a line: JSON objects of a sensor, a time and a value. See plain.py.

   What is taken here is a part of what the decoder in Python takes, with the same result. All else is left to that one,
   which also says what is wrong: a line with another key, a key twice, no key, an escape or a character beyond ASCII. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef KERNEL_DIGEST
#define KERNEL_DIGEST ""
#endif

enum { SENSOR, TIME, VALUE, KEYS };
enum { INTEGERS, FLOATS, TEXTS }; /* what the times of all lines are */
enum { LONGEST_ID = 256, LONGEST_TIME = 64, LONGEST_NUMBER = 40 };

static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const int64_t EXACT = INT64_C(1) << 53; /* up to here every integer is a double */

typedef struct {
    const char *name;
    int64_t length;
} key;

/* A number: `whole` if it has neither point nor exponent, then `integer` is it. */
typedef struct {
    double real;
    int64_t integer;
    int whole;
} number;

/* The place after white space. */
static const char *skip(const char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\r') at++;
    return at;
}

static const char *digits(const char *at, int64_t *total, int *count) {
    for (; *at >= '0' && *at <= '9'; at++)
        if (++*count <= 18) *total = 10 * *total + (*at - '0');
    return at;
}

/* The place after a number of JSON's form; NULL: there is none, or it has more digits than a person would write. Up to 22
   powers of ten are exact, and what is made of two exact numbers is rounded once; of others strtod has to make one. */
static const char *read_number(const char *at, number *found) {
    const char *begin = at;
    int count = 0, behind = 0, power = 0, minus = *at == '-';
    int64_t total = 0;
    at += minus;
    const char *first = at;
    at = digits(at, &total, &count);
    if (at == first || (*first == '0' && at > first + 1)) return NULL;
    found->whole = *at != '.' && *at != 'e' && *at != 'E';
    if (*at == '.') {
        int before = count;
        at = digits(at + 1, &total, &count);
        behind = count - before;
        if (!behind) return NULL;
    }
    if (*at == 'e' || *at == 'E') {
        int64_t exponent = 0;
        int length = 0, down = at[1] == '-';
        at = digits(at + 1 + (at[1] == '-' || at[1] == '+'), &exponent, &length);
        if (!length || length > 3) return NULL;
        power = down ? -(int)exponent : (int)exponent;
    }
    if (at - begin > LONGEST_NUMBER || (minus && total == 0)) return NULL;
    power -= behind;
    if (found->whole && count > 18) return NULL;
    found->integer = minus ? -total : total;
    if (count <= 18 && total <= EXACT && power >= -22 && power <= 22) {
        double size = power < 0 ? (double)total / TENS[-power] : (double)total * TENS[power];
        found->real = minus ? -size : size;
        return at;
    }
    char *end;
    found->real = strtod(begin, &end);
    return end == at && isfinite(found->real) ? at : NULL;
}

/* The place after a text, of which a copy goes to `*out` with an end of a line behind it; NULL: it is none, or is empty,
   long or not plain. */
static const char *read_text(const char *at, int64_t longest, char **out) {
    if (*at++ != '"') return NULL;
    const char *begin = at;
    char *to = *out;
    while (*at >= ' ' && *at <= '~' && *at != '"' && *at != '\\') *to++ = *at++;
    if (*at != '"' || at == begin || at - begin > longest) return NULL;
    *to++ = '\n';
    *out = to;
    return at + 1;
}

/* What stands on lines so far: as many of `times` and `values` as there were lines, the first either integers or the bits of
   floats; `ids`, and `texts` where times are that, one a line. `kind`: of all times; -1: there was none yet. */
typedef struct {
    int64_t *times, kind;
    double *values;
    char *ids, *texts;
} columns;

static const char *read_time(const char *at, columns *to) {
    number found = {0.0, 0, 0};
    int64_t kind = TEXTS;
    if (*at == '"') {
        at = read_text(at, LONGEST_TIME, &to->texts);
    } else {
        at = read_number(at, &found);
        kind = found.whole ? INTEGERS : FLOATS;
    }
    if (!at || (to->kind >= 0 && to->kind != kind)) return NULL;
    to->kind = kind;
    if (kind == INTEGERS) *to->times = found.integer;
    if (kind == FLOATS) memcpy(to->times, &found.real, sizeof(double));
    to->times++;
    return at;
}

static const char *read_value(const char *at, columns *to) {
    number found = {NAN, 0, 0};
    at = strncmp(at, "null", 4) ? read_number(at, &found) : at + 4;
    *to->values++ = found.real;
    return at;
}

/* Keys have the quote behind their name. */
static int which(const key *keys, const char *at) {
    for (int i = 0; i < KEYS; i++) {
        int64_t same = 0;
        while (same < keys[i].length && at[same] == keys[i].name[same]) same++;
        if (same == keys[i].length) return i;
    }
    return KEYS;
}

static const char *read_line(const char *at, const key *keys, columns *to) {
    int seen = 0;
    at = skip(at);
    if (*at != '{') return NULL;
    do {
        at = skip(at + 1);
        if (*at++ != '"') return NULL;
        int found = which(keys, at);
        if (found == KEYS || seen & 1 << found) return NULL;
        seen |= 1 << found;
        at = skip(at + keys[found].length);
        if (*at != ':') return NULL;
        at = skip(at + 1);
        if (found == SENSOR) at = read_text(at, LONGEST_ID, &to->ids);
        if (found == TIME) at = read_time(at, to);
        if (found == VALUE) at = read_value(at, to);
        if (!at) return NULL;
        at = skip(at);
    } while (*at == ',');
    return *at == '}' && seen == (1 << KEYS) - 1 ? skip(at + 1) : NULL;
}

const char *kernel_digest(void) { return KERNEL_DIGEST; }

/* The columns of so many lines, of which `text` (size), a NUL behind it, consists. Returns 0 if there is any that is not
   plain. */
int64_t scan_plain(const char *text, int64_t size, int64_t lines, const key *keys, columns *to) {
    const char *at = text;
    for (int64_t line = 0; line < lines; line++) {
        if (line && *at++ != '\n') return 0;
        at = read_line(at, keys, to);
        if (!at) return 0;
    }
    return at == text + size;
}
