/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/tokenizer_impl.h"

/* GPT-2 maps printable bytes of Latin-1 to themselves and the other 68, in order, to U+0100 and up. */
static bool is_plain(unsigned b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

/* Number of bytes below b that are not plain. */
static unsigned rank_of(unsigned b)
{
    if (b <= 0x20)
        return b;
    if (b <= 0xA0)
        return 0x21 + (b - 0x7F);
    return 0x21 + 0x22; /* 0xAD */
}

size_t bal_byte_to_char(unsigned char byte, unsigned char out[4])
{
    return bal_utf8_encode(is_plain(byte) ? byte : 0x100 + rank_of(byte), out);
}

int bal_char_to_byte(uint32_t cp)
{
    if (cp < 0x100)
        return is_plain(cp) ? (int)cp : -1;
    unsigned r = cp - 0x100;
    if (r <= 0x20)
        return (int)r;
    if (r < 0x21 + 0x22)
        return (int)(0x7F + (r - 0x21));
    return r == 0x21 + 0x22 ? 0xAD : -1;
}

/* Length of the longest part at s that could begin a valid sequence: what one U+FFFD stands for (Unicode, "maximal
 * subpart"). */
static size_t broken_part(const unsigned char *s, size_t n)
{
    unsigned char lead = s[0];
    if (lead < 0xC2 || lead > 0xF4)
        return 1;
    size_t len = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    for (size_t i = 1; i < len; i++) {
        if (i >= n)
            return i;
        unsigned char low = 0x80, high = 0xBF;
        if (i == 1) {
            low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
            high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        }
        if (s[i] < low || s[i] > high)
            return i;
    }
    return len;
}

bal_status bal_utf8_lossy(const char *text, size_t n, bal_buf *out)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t plain = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp;
        size_t len = bal_utf8_decode(s + i, n - i, &cp);
        if (len == 0) {
            status = bal_buf_append(out, text + plain, i - plain);
            if (status == BAL_OK)
                status = bal_buf_append(out, "\xEF\xBF\xBD", 3);
            i += broken_part(s + i, n - i);
            plain = i;
        } else {
            i += len;
        }
    }
    return status == BAL_OK ? bal_buf_append(out, text + plain, n - plain) : status;
}
