"""Strings and numbers as Go's encoding/json prints them, HTML escaping on, which is its default.

Strings are copied 16 bytes at a time, up to the first byte that is not printed as itself. Both functions that write
may touch JSON_SLACK bytes behind what they give back; whoever calls them has seen to the room.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    #define JSON_STEP 16
    #define JSON_SLACK 64  /* bytes behind the output that may be written; keys are copied in steps, too */

    /* A bit for each zero byte of a word, in its highest place; exact, no carry leaves a byte. */
    static inline uint64_t relay_json_zeros(uint64_t word) {
        const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
        return ~(((word & low) + low) | word | low);
    }

    /* The same for each byte that is not printed as itself: controls, beyond ASCII, " \\ < > &. */
    static inline uint64_t relay_json_word(uint64_t word) {
        const uint64_t each = UINT64_C(0x0101010101010101);
        return relay_json_zeros(word & each * 0xe0) | (word & each * 0x80) | relay_json_zeros(word ^ each * 0x5c)
            | relay_json_zeros((word | each * 0x02) ^ each * 0x3e)
            | relay_json_zeros((word & ~(each * 0x04)) ^ each * 0x22);
    }

    /* Which of 16 bytes are not printed as themselves: bit i for byte i. */
    static inline unsigned relay_json_marks_plain(const uint8_t *data) {
        unsigned marks = 0;
        for (int half = 0; half < 2; half++) {
            uint64_t word;
            memcpy(&word, data + 8 * half, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
            word = __builtin_bswap64(word);
    #endif
            /* The multiplication gathers eight bits that are a byte apart. */
            word = (relay_json_word(word) >> 7) * UINT64_C(0x0102040810204080) >> 56;
            marks |= (unsigned)word << (8 * half);
        }
        return marks;
    }

    static inline unsigned relay_json_marks(const uint8_t *data) {
    #ifdef __SSE2__
        const __m128i bytes = _mm_loadu_si128((const __m128i *)data);
        /* Signed: bytes beyond ASCII are below 32, too. '<' and '>' differ in one bit, '"' and '&' as well. */
        const __m128i below = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
        const __m128i slash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x5c));
        const __m128i angle = _mm_cmpeq_epi8(_mm_or_si128(bytes, _mm_set1_epi8(0x02)), _mm_set1_epi8(0x3e));
        const __m128i quote = _mm_cmpeq_epi8(_mm_andnot_si128(_mm_set1_epi8(0x04), bytes), _mm_set1_epi8(0x22));
        return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(below, slash), _mm_or_si128(angle, quote)));
    #else
        return relay_json_marks_plain(data);
    #endif
    }

    /* The size of the character at `at`, which is beyond ASCII, or 0 when it is not UTF-8 (RFC 3629, 4). */
    static inline size_t relay_json_rune(const uint8_t *at, const uint8_t *end) {
        const size_t left = (size_t)(end - at);
        const uint8_t first = at[0];
        uint8_t least = 0x80, most = 0xbf;
        size_t size;
        if (first < 0xc2 || first > 0xf4) return 0;
        size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        if (left < size) return 0;
        if (first == 0xe0) least = 0xa0;
        if (first == 0xed) most = 0x9f;
        if (first == 0xf0) least = 0x90;
        if (first == 0xf4) most = 0x8f;
        if (at[1] < least || at[1] > most) return 0;
        if (size > 2 && (at[2] & 0xc0) != 0x80) return 0;
        if (size > 3 && (at[3] & 0xc0) != 0x80) return 0;
        return size;
    }

    /* What is not printed as itself at `*from`: one byte, or all that is beyond ASCII. Six bytes for one at most. */
    static __attribute__((noinline)) uint8_t *relay_json_escape(uint8_t *to, const uint8_t **from, const uint8_t *end) {
        static const char hex[16] = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'};
        const uint8_t *at = *from;
        const uint8_t byte = *at;
        if (byte < 0x80) {
            char letter = 0;
            switch (byte) {
                case '"': case '\\\\': letter = (char)byte; break;
                case '\\b': letter = 'b'; break;
                case '\\f': letter = 'f'; break;
                case '\\n': letter = 'n'; break;
                case '\\r': letter = 'r'; break;
                case '\\t': letter = 't'; break;
            }
            *to++ = '\\\\';
            if (letter != 0) {
                *to++ = (uint8_t)letter;
            } else {
                memcpy(to, "u00", 3);
                to[3] = (uint8_t)hex[byte >> 4];
                to[4] = (uint8_t)hex[byte & 15];
                to += 5;
            }
            *from = at + 1;
            return to;
        }
        while (at < end && *at >= 0x80) {
            const size_t size = relay_json_rune(at, end);
            if (size == 0) {
                memcpy(to, "\\\\ufffd", 6);
                to += 6;
                at += 1;
            } else if (size == 3 && at[0] == 0xe2 && at[1] == 0x80 && (at[2] & 0xfe) == 0xa8) {
                /* The line separators of JavaScript. */
                memcpy(to, "\\\\u202", 5);
                to[5] = at[2] == 0xa8 ? '8' : '9';
                to += 6;
                at += 3;
            } else {
                memcpy(to, at, size);
                to += size;
                at += size;
            }
        }
        *from = at;
        return to;
    }

    /* Print the text from `at` to `end` without quotes; `limit`, not before `end`, is where reading has to stop. */
    static inline uint8_t *relay_json_text(
        uint8_t *to, const uint8_t *at, const uint8_t *end, const uint8_t *limit
    ) {
        uint8_t last[JSON_STEP] = {0};
        while (at < end) {
            const size_t left = (size_t)(end - at);
            const uint8_t *step = at;
            if (__builtin_expect(limit - at < JSON_STEP, 0)) {
                memcpy(last, at, left);
                step = last;
            }
            unsigned marks = relay_json_marks(step);
            memcpy(to, step, JSON_STEP);
            if (left < JSON_STEP) marks |= 1u << left;
            if (marks == 0) {
                at += JSON_STEP;
                to += JSON_STEP;
                continue;
            }
            const unsigned plain = (unsigned)__builtin_ctz(marks);
            at += plain;
            to += plain;
            if (at < end) to = relay_json_escape(to, &at, end);
        }
        return to;
    }

    /* How many bytes are not printed as themselves. */
    static inline size_t relay_json_marked(const uint8_t *at, size_t size) {
        size_t total = 0;
        for (; size >= JSON_STEP; at += JSON_STEP, size -= JSON_STEP)
            total += (size_t)__builtin_popcount(relay_json_marks(at));
        return total + size;
    }

    /* A number in decimal: 20 characters at most. */
    static inline uint8_t *relay_json_unsigned(uint8_t *to, uint64_t value) {
        static const char pairs[201] =
            "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
            "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
        uint8_t digits[20];
        uint8_t *at = digits + sizeof(digits);
        while (value >= 100) {
            at -= 2;
            memcpy(at, pairs + 2 * (value % 100), 2);
            value /= 100;
        }
        if (value >= 10) {
            at -= 2;
            memcpy(at, pairs + 2 * value, 2);
        } else {
            *--at = (uint8_t)('0' + value);
        }
        const size_t size = (size_t)(digits + sizeof(digits) - at);
        memcpy(to, at, size);
        return to + size;
    }

    static inline uint8_t *relay_json_signed(uint8_t *to, int64_t value) {
        if (value < 0) {
            *to++ = '-';
            return relay_json_unsigned(to, 0 - (uint64_t)value);
        }
        return relay_json_unsigned(to, (uint64_t)value);
    }
    """
    enum:
        JSON_STEP
        JSON_SLACK
    unsigned int relay_json_marks(const uint8_t *data) noexcept nogil
    unsigned int relay_json_marks_plain(const uint8_t *data) noexcept nogil
    uint8_t *relay_json_text(
        uint8_t *to, const uint8_t *at, const uint8_t *end, const uint8_t *limit) noexcept nogil
    size_t relay_json_marked(const uint8_t *at, size_t size) noexcept nogil
    uint8_t *relay_json_unsigned(uint8_t *to, uint64_t value) noexcept nogil
    uint8_t *relay_json_signed(uint8_t *to, int64_t value) noexcept nogil
