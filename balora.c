/* The dispatcher: a table of commands, each in its own cmd_*.c.  SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

int main(void)
{
    puts("balora");
    return 0;
}
