"""Files of instructions in, files of scores out: readers, writers, and the parts a long job is saved in."""
