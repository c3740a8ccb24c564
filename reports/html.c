/* One self-contained page.  SPDX-License-Identifier: Apache-2.0 */
#include "reports/report.h"

#include "lib/base/mem.h"

#include <string.h>

enum { PICTURE_MAX_BYTES = 32 << 20 };

bal_status report_put_html(bal_writer *w, const char *text)
{
    bal_status status = BAL_OK;
    for (const char *c = text; *c != '\0'; c++) {
        const char *escape = *c == '&'    ? "&amp;"
                             : *c == '<'  ? "&lt;"
                             : *c == '>'  ? "&gt;"
                             : *c == '"'  ? "&quot;"
                             : *c == '\'' ? "&#39;"
                                          : NULL;
        status = escape != NULL ? bal_writer_write(w, escape, strlen(escape)) : bal_writer_write(w, c, 1);
    }
    return status;
}

static bal_status put_base64(bal_writer *w, const unsigned char *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n; i += 3) {
        unsigned v =
            (unsigned)data[i] << 16 | (i + 1 < n ? (unsigned)data[i + 1] << 8 : 0) | (i + 2 < n ? data[i + 2] : 0);
        char out[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                       i + 2 < n ? digits[v & 63] : '='};
        status = bal_writer_write(w, out, 4);
    }
    return status;
}

static bal_status put_table(bal_writer *w, const report_table *t)
{
    (void)bal_writer_printf(w, "<section><h2>%s</h2><p class=c>%s</p><div class=t><table>\n", t->title, t->caption);
    for (size_t i = 0; i < t->n_rows; i++) {
        (void)bal_writer_printf(w, i == 0 ? "<thead><tr>" : "<tr>");
        for (size_t j = 0; j < t->n_columns; j++) {
            (void)bal_writer_printf(w, i == 0 ? "<th>" : "<td>");
            (void)report_put_html(w, t->cells[i * t->n_columns + j]);
            (void)bal_writer_printf(w, i == 0 ? "</th>" : "</td>");
        }
        (void)bal_writer_printf(w, i == 0 ? "</tr></thead>\n" : "</tr>\n");
    }
    return bal_writer_printf(w, "</table></div><p class=f>%s.md, %s.csv, %s.tex</p></section>\n", t->stem, t->stem,
                             t->stem);
}

static bal_status put_figure(const report *r, bal_writer *w, const report_figure *f)
{
    char name[64];
    bal_buf svg = {0};
    (void)snprintf(name, sizeof name, "%s.svg", f->stem);
    char *path = bal_path_join(r->out, name);
    if (path == NULL)
        return BAL_ENOMEM;
    (void)bal_writer_printf(w, "<section><h2>%s</h2>", f->title);
    if (bal_file_exists(path) && bal_file_read(path, PICTURE_MAX_BYTES, &svg) == BAL_OK && svg.len > 0) {
        (void)bal_writer_printf(w, "<img alt=\"%s\" src=\"data:image/svg+xml;base64,", f->title);
        (void)put_base64(w, (const unsigned char *)svg.data, svg.len);
        (void)bal_writer_printf(w, "\">");
    } else {
        (void)bal_writer_printf(
            w, "<p><em>Not drawn: gnuplot was not at hand. The data and %s.gp are beside this page.</em></p>", f->stem);
    }
    bal_buf_dispose(&svg);
    bal_free(path);
    return bal_writer_printf(w, "<p class=c>%s</p><p class=f>%s.gp, %s*.dat</p></section>\n", f->caption, f->stem,
                             f->stem);
}

bal_status report_html(const report *r)
{
    static const char style[] =
        ":root{color-scheme:light "
        "dark;--b:#fff;--t:#1b1b1b;--m:#666;--l:#ddd}@media(prefers-color-scheme:dark){:root{--b:#16181b;--t:#e6e6e6;--"
        "m:#9a9a9a;--l:#3a3d42}}"
        "body{font:15px/1.5 system-ui,sans-serif;background:var(--b);color:var(--t);max-width:70rem;margin:2rem "
        "auto;padding:0 1rem}"
        "h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.2rem 0 .3rem}img{max-width:100%;background:#fff;border:1px "
        "solid var(--l);border-radius:4px}"
        ".t{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}th,td{"
        "padding:.25rem .7rem;border-bottom:1px solid var(--l);text-align:right;white-space:nowrap}"
        "th:first-child,td:first-child{text-align:left}.c{color:var(--m);margin:.2rem 0 "
        ".6rem}.f{color:var(--m);font-size:.8rem;margin:.2rem 0}";
    bal_writer w = {0};
    char *path = bal_path_join(r->out, "report.html");
    bal_status status = path == NULL ? BAL_ENOMEM : bal_writer_open(&w, path);
    bal_free(path);
    if (status != BAL_OK)
        return status;
    (void)bal_writer_printf(
        &w,
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport "
        "content=\"width=device-width\"><title>balora report</title><style>%s</style></head><body>\n"
        "<h1>balora report</h1><p class=c>%zu runs from ",
        style, r->n_runs);
    (void)report_put_html(&w, bal_store_path(r->store));
    (void)bal_writer_printf(
        &w, ". The figures are what was measured; a difference smaller than its interval is no evidence.</p>\n");
    static const char *const first[] = {"scores", "diversity", "updates"}; /* results before the list of runs */
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < r->n_tables; i++)
            if (strcmp(r->tables[i].stem, first[k]) == 0)
                (void)put_table(&w, &r->tables[i]);
    for (size_t i = 0; i < r->n_figures; i++)
        (void)put_figure(r, &w, &r->figures[i]);
    for (size_t i = 0; i < r->n_tables; i++)
        if (strcmp(r->tables[i].stem, "runs") == 0)
            (void)put_table(&w, &r->tables[i]);
    (void)bal_writer_printf(&w, "</body></html>\n");
    return bal_writer_commit(&w);
}
