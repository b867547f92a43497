#!/usr/bin/env python3
"""Makes svd_golden.inc: singular values of numpy's full decomposition of matrices that the test makes by the same rule.

    python make_svd_golden.py > svd_golden.inc        (needs numpy)
"""
import numpy as np

CASES = [  # rows, columns, rank, how fast the columns shrink
    (96, 64, 8, 8), (64, 96, 8, 8), (131, 67, 5, 2), (67, 131, 5, 2), (40, 40, 16, 1000000), (33, 200, 33, 16),
    (7, 3, 1, 1), (3, 7, 3, 1), (257, 129, 32, 40)]


def matrix(rows, cols, decay):
    i, j = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    return (((i * 7919 + j * 104729 + i * j * 31) % 1009 / 1009 - 0.5) / (1 + j / decay)).astype(np.float32)


def main():
    print("// Made by make_svd_golden.py. rows, columns, rank, decay, length of what the rank leaves over, singular values.")
    for rows, cols, rank, decay in CASES:
        s = np.linalg.svd(matrix(rows, cols, decay).astype(np.float64), compute_uv=False)
        values = ", ".join(f"{x:.9g}" for x in s[:rank])
        rest = np.sqrt((s[rank:] ** 2).sum())
        print(f"{{{rows}, {cols}, {rank}, {decay}, {rest:.9g}, {{{values}}}}},")


main()
