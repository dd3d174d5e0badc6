/* What a program does to elements: add, copy, widen and round them. */
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Of 16 bits are added in float32; of the others the sum has their own type. */
enum { FLOAT32, FLOAT64, FLOAT16, BFLOAT16 };

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORS __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define VECTORS
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t as_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The exponent's bias differs by 112, which multiplying undoes, also where it is subnormal. */
INLINE float widened_float16(uint16_t bits)
{
    uint32_t magnitude = (uint32_t)(bits & 0x7fff) << 13;
    uint32_t finite = as_bits(as_float(magnitude) * 0x1p112f);
    uint32_t any = (bits & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000 : finite;
    return as_float(any | (uint32_t)(bits & 0x8000) << 16);
}

/* To nearest, ties to even. The addition that brings a subnormal's bits into place rounds them. */
INLINE uint16_t rounded_float16(float value)
{
    uint32_t bits = as_bits(value), magnitude = bits & 0x7fffffff;
    uint32_t subnormal = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);
    uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
    uint32_t finite = magnitude < 113u << 23 ? subnormal : normal;
    return (magnitude >= 143u << 23 ? special : finite) | (bits >> 16 & 0x8000);
}

INLINE float widened_bfloat16(uint16_t bits)
{
    return as_float((uint32_t)bits << 16);
}

INLINE uint16_t rounded_bfloat16(float value)
{
    uint32_t bits = as_bits(value);
    uint32_t nan = bits >> 16 | 0x40, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? nan : rounded;
}

#define EACH(statement)                                                                            \
    for (int64_t i = 0; i < count; i++)                                                            \
        statement;

VECTORS static void add_float32(float *restrict sum, const float *restrict term, int64_t count)
{
    EACH(sum[i] += term[i])
}

VECTORS static void add_float64(double *restrict sum, const double *restrict term, int64_t count)
{
    EACH(sum[i] += term[i])
}

VECTORS static void add_float16(float *restrict sum, const uint16_t *restrict term, int64_t count)
{
    EACH(sum[i] += widened_float16(term[i]))
}

VECTORS static void add_bfloat16(float *restrict sum, const uint16_t *restrict term, int64_t count)
{
    EACH(sum[i] += widened_bfloat16(term[i]))
}

VECTORS static void widen_float16(float *restrict to, const uint16_t *restrict from, int64_t count)
{
    EACH(to[i] = widened_float16(from[i]))
}

VECTORS static void widen_bfloat16(float *restrict to, const uint16_t *restrict from, int64_t count)
{
    EACH(to[i] = widened_bfloat16(from[i]))
}

VECTORS static void round_float16(uint16_t *restrict to, const float *restrict from, int64_t count)
{
    EACH(to[i] = rounded_float16(from[i]))
}

VECTORS static void round_bfloat16(uint16_t *restrict to, const float *restrict from, int64_t count)
{
    EACH(to[i] = rounded_bfloat16(from[i]))
}

/* Add elements of so many bytes to a sum. */
static void add(int64_t element, void *sum, const void *term, int64_t nbytes)
{
    switch (element) {
    case FLOAT32:
        add_float32(sum, term, nbytes / 4);
        break;
    case FLOAT64:
        add_float64(sum, term, nbytes / 8);
        break;
    case FLOAT16:
        add_float16(sum, term, nbytes / 2);
        break;
    default:
        add_bfloat16(sum, term, nbytes / 2);
    }
}

/* Widen elements of 16 bits. */
static void widen(int64_t element, void *to, const void *from, int64_t nbytes)
{
    if (element == FLOAT16)
        widen_float16(to, from, nbytes / 2);
    else
        widen_bfloat16(to, from, nbytes / 2);
}

/* Round to elements of 16 bits. */
static void round_to(int64_t element, void *to, const void *from, int64_t nbytes)
{
    if (element == FLOAT16)
        round_float16(to, from, nbytes / 2);
    else
        round_bfloat16(to, from, nbytes / 2);
}

/* Load elements into this core's second-level cache, to be overwritten before long. */
static inline void prefetch(const char *start, int64_t nbytes)
{
#if defined(__GNUC__)
    for (int64_t i = 0; i < nbytes; i += 64)
        __builtin_prefetch(start + i, 1, 2);
#endif
}

/* Long copies go past the caches. Most of them would have to be fetched from memory only to be
 * overwritten, and who reads a copy next, from another core, fetches it faster from memory than from
 * this core's cache; on some processors by a factor of three. */
static void copy(char *to, const char *from, int64_t nbytes)
{
#if defined(__SSE2__)
    enum { LONG = 1 << 18, LINE = 64, AHEAD = 16 * LINE };
    if (nbytes >= LONG) {
        int64_t head = -(uintptr_t)to % LINE;
        memcpy(to, from, head);
        to += head, from += head, nbytes -= head;
        for (; nbytes >= LINE; to += LINE, from += LINE, nbytes -= LINE) {
            __builtin_prefetch(from + AHEAD);
            __m128i words[LINE / 16];
            for (int i = 0; i < LINE / 16; i++)
                words[i] = _mm_loadu_si128((const __m128i *)from + i);
            for (int i = 0; i < LINE / 16; i++)
                _mm_stream_si128((__m128i *)to + i, words[i]);
        }
        _mm_sfence(); /* or they might be seen after the token that tells of them */
    }
#endif
    memcpy(to, from, nbytes);
}
