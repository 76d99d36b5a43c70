/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_SUITE_H
#define TND_TEST_SUITE_H

#include <check.h>
#include <stdlib.h>

/* Runs a suite and tells its exit status. Rings and threads do not survive the fork that libcheck would make. */
static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
