/* SPDX-License-Identifier: Apache-2.0 */
#include "reports/report.h"

#include "lib/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Okabe and Ito's colours: told apart with any colour vision; black first serves the base model. */
size_t report_dash(size_t n)
{
    return n == 0 ? 1 : 2 + (n - 1) % 4;
}

const char *report_color(int i)
{
    static const char *const colors[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                         "#E69F00", "#56B4E9", "#000000", "#8C564B"};
    return colors[(size_t)i % (sizeof colors / sizeof colors[0])];
}

static bal_status open_file(const report *r, bal_writer *w, const char *stem, const char *ending)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s%s", stem, ending);
    char *path = bal_path_join(r->out, name);
    bal_status status = path == NULL ? BAL_ENOMEM : bal_writer_open(w, path);
    bal_free(path);
    return status;
}

bal_status report_dat_open(const report *r, bal_writer *w, const char *stem)
{
    return open_file(r, w, stem, ".dat");
}

bal_status report_gp_open(const report *r, bal_writer *w, const char *stem, int width, int height)
{
    bal_status status = open_file(r, w, stem, ".gp");
    if (status != BAL_OK)
        return status;
    return bal_writer_printf(
        w,
        "# gnuplot -e \"kind='png'\" %s.gp   (or kind='svg') draws %s again from %s*.dat\n"
        "if (!exists('kind')) kind = 'png'\n"
        "if (kind eq 'svg') set terminal svg size %d,%d font 'sans,13' background '#ffffff'\n"
        "if (kind eq 'png') set terminal pngcairo size %d,%d font 'sans,11' background '#ffffff'\n"
        "set output '%s.'.kind\n"
        "set datafile missing '?'\nset datafile separator tab\nset border 3 lc '#555555'\nset tics nomirror out\n"
        "set grid lc '#dddddd' lt 1 lw 0.5\nset key outside right top reverse Left samplen 2 noenhanced\n",
        stem, stem, stem, width, height, width, height, stem);
}

bal_status report_gp_text(bal_writer *w, const char *text)
{
    bal_status status = bal_writer_write(w, "'", 1);
    for (const char *c = text; *c != '\0'; c++)
        status = *c == '\''                 ? bal_writer_write(w, "''", 2)
                 : (unsigned char)*c < 0x20 ? bal_writer_write(w, " ", 1)
                                            : bal_writer_write(w, c, 1);
    return status == BAL_OK ? bal_writer_write(w, "'", 1) : status;
}

void report_put_number(bal_writer *w, double value)
{
    if (isfinite(value))
        (void)bal_writer_printf(w, "\t%.9g", value);
    else
        (void)bal_writer_write(w, "\t?", 2);
}

/* Runs gnuplot in the report's folder, without a shell.  false: not there, or it failed (said in the log). */
static bool run_gnuplot(const report *r, const char *stem, const char *kind)
{
    char set_kind[32], file[96];
    int state = 0;
    (void)snprintf(set_kind, sizeof set_kind, "kind='%s'", kind);
    (void)snprintf(file, sizeof file, "%s.gp", stem);
    pid_t child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        char *words[] = {(char[]){"gnuplot"}, (char[]){"-e"}, set_kind, file, NULL};
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (chdir(r->out) != 0 || null < 0 || dup2(null, STDIN_FILENO) < 0)
            _exit(126);
        (void)dup2(STDERR_FILENO, STDOUT_FILENO);
        (void)execvp(words[0], words);
        _exit(127);
    }
    while (waitpid(child, &state, 0) < 0)
        if (errno != EINTR)
            return false;
    if (WIFEXITED(state) && WEXITSTATUS(state) == 127)
        return false;
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        bal_log_line(r->log, BAL_LOG_WARN, "gnuplot could not draw %s.gp", stem);
    return true;
}

bal_status report_plot(report *r, const char *stem, const char *title, const char *caption)
{
    if (r->n_figures == REPORT_MAX_FIGURES)
        return bal_fail(BAL_ELIMIT, "a report holds at most %d figures", REPORT_MAX_FIGURES);
    report_figure *f = &r->figures[r->n_figures++];
    (void)snprintf(f->stem, sizeof f->stem, "%s", stem);
    f->title = title;
    f->caption = caption;
    if (r->have_gnuplot && !run_gnuplot(r, stem, "png")) {
        r->have_gnuplot = false;
        bal_log_line(r->log, BAL_LOG_WARN,
                     "gnuplot is not installed (Debian: gnuplot-nox): data and scripts are written, pictures are not");
    }
    if (r->have_gnuplot)
        (void)run_gnuplot(r, stem, "svg");
    return BAL_OK;
}
