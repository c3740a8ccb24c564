/* balora pretrain: a small model from scratch, all weights, in the same loop as `train`.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"
#include "train/train.h"

int cmd_pretrain(int argc, char **argv)
{
    return train_main(&pretrain_command, argc, argv);
}
