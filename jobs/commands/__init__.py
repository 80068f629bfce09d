"""The options of the commands of `kcm`; `jobs.work` has what each command does."""
