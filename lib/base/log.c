/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/log.h"

#include "lib/base/clock.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static FILE *g_bar_on; /* where a bar stands on the last line, which has no end yet */

void bal_log_init(bal_log *log, bal_log_level level)
{
    const char *no_color = getenv("NO_COLOR");
    log->to = stderr;
    log->level = level;
    log->color = isatty(STDERR_FILENO) == 1 && (no_color == NULL || no_color[0] == '\0');
}

void bal_log_line(const bal_log *log, bal_log_level level, const char *format, ...)
{
    static const char *const prefix[] = {"balora: ", "balora: warning: ", "", ""};
    static const char *const color[] = {"\033[31m", "\033[33m", "", "\033[2m"};
    if (log == NULL || log->to == NULL || level > log->level)
        return;
    bal_progress_break();
    va_list args;
    va_start(args, format);
    (void)fprintf(log->to, "%s%s", log->color ? color[level] : "", prefix[level]);
    (void)vfprintf(log->to, format, args);
    (void)fprintf(log->to, "%s\n", log->color && color[level][0] != '\0' ? "\033[0m" : "");
    va_end(args);
}

void bal_progress_start(bal_progress *p, const bal_log *log, const char *what, const char *unit, uint64_t total,
                        bool on)
{
    *p = (bal_progress){.what = what, .unit = unit, .total = total, .before = UINT64_MAX, .start = bal_clock_seconds()};
    p->to = log != NULL ? log->to : NULL;
    p->on = on && p->to != NULL && isatty(fileno(p->to)) == 1;
}

static void format_seconds(double seconds, char *out, size_t n)
{
    unsigned long s = seconds > 0 && seconds < 1e7 ? (unsigned long)seconds : 0;
    if (s >= 3600)
        (void)snprintf(out, n, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        (void)snprintf(out, n, "%lu:%02lu", s / 60, s % 60);
}

/* Columns of the terminal; a line that wraps could not be drawn over. */
static int columns(FILE *to)
{
    struct winsize size;
    bool known = ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? size.ws_col - 1 : 1000;
}

static void draw(const bal_progress *p, double now)
{
    enum { WIDTH = 24 };
    char bar[WIDTH + 1], eta[32], line[320];
    double elapsed = now - p->start;
    double rate = elapsed > 0 ? (double)(p->done - p->before) / elapsed : 0;
    size_t filled = p->total > 0 ? (size_t)((double)p->done / (double)p->total * WIDTH) : 0;
    if (filled > WIDTH)
        filled = WIDTH;
    memset(bar, '#', filled);
    memset(bar + filled, '.', WIDTH - filled);
    bar[WIDTH] = '\0';
    format_seconds(rate > 0 && p->total > p->done ? (double)(p->total - p->done) / rate : 0, eta, sizeof eta);
    (void)snprintf(line, sizeof line, "%.60s [%s] %llu/%llu %.20s, %.*f %.20s/s, ETA %s%s%s", p->what, bar,
                   (unsigned long long)p->done, (unsigned long long)p->total, p->unit,
                   rate < 10    ? 2
                   : rate < 100 ? 1
                                : 0,
                   rate, p->unit, eta, p->note[0] != '\0' ? ", " : "", p->note);
    (void)fprintf(p->to, "\r\033[K%.*s", columns(p->to), line);
    (void)fflush(p->to);
    g_bar_on = p->to;
}

void bal_progress_break(void)
{
    if (g_bar_on != NULL)
        (void)fputc('\n', g_bar_on);
    g_bar_on = NULL;
}

void bal_progress_update(bal_progress *p, uint64_t done, const char *note)
{
    p->done = done;
    if (p->before == UINT64_MAX) /* what a resumed run had done before is not its speed */
        p->before = done > 0 ? done - 1 : 0;
    if (note != NULL)
        (void)snprintf(p->note, sizeof p->note, "%s", note);
    double now = bal_clock_seconds();
    if (!p->on || now - p->last < 0.2)
        return;
    p->last = now;
    draw(p, now);
}

void bal_progress_done(bal_progress *p)
{
    if (p->on && p->before != UINT64_MAX) {
        draw(p, bal_clock_seconds());
        bal_progress_break();
    }
    p->on = false;
}

static volatile sig_atomic_t g_interrupts;

static void on_signal(int number)
{
    (void)number;
    if (g_interrupts++ > 0)
        _exit(130);
}

void bal_interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

bool bal_interrupted(void)
{
    return g_interrupts > 0;
}
