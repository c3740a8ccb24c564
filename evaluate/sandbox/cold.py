# One interpreter for one program.  SPDX-License-Identifier: Apache-2.0
main()
