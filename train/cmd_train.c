/* balora train: options, parts, loop, end.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"
#include "train/train.h"

#include "lib/base/log.h"
#include "lib/tensor/gemm.h"

#include <unistd.h>

static bal_status run(trainer *t)
{
    bal_status status = BAL_OK;
    BAL_TRY(checkpoint_find(t));
    BAL_TRY(checkpoint_read_state(t));
    BAL_TRY(checkpoint_prepare_out(t));
    BAL_TRY(metrics_open_store(t));
    BAL_TRY(train_setup(t));
    BAL_TRY(metrics_open_file(t));
    BAL_TRY(train_loop(t));
out:
    return status;
}

int train_main(const bal_command *command, int argc, char **argv)
{
    train_config config = {0};
    trainer t = {.config = &config, .command = command->name, .argc = argc, .argv = argv};
    bal_options *o = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&o, command, argc, argv, &config, &help);
    if (status == BAL_OK && !help) {
        t.options = o;
        t.log = &bal_options_common(o)->log;
        bal_interrupt_install();
        status = train_resolve(&t, &config);
        if (status == BAL_OK)
            status = bal_options_start(o);
        if (status == BAL_OK) {
            bal_gemm_init();
            status = run(&t);
            status = metrics_close(&t, status);
            if (status != BAL_OK && t.made_out)
                (void)rmdir(config.out); /* a start that failed leaves nothing; a folder with content stays */
        }
        train_dispose(&t);
    }
    int code = bal_command_finish(command, status);
    bal_options_free(o);
    return code;
}

int cmd_train(int argc, char **argv)
{
    return train_main(&train_command, argc, argv);
}
