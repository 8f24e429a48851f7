"""Modules that solutions and tests import most, imported once in the zygote; its children share their memory.

Not more of them: each fork copies the tables of all memory, so that those that few programs want cost all others time.
"""

import bisect  # noqa: F401
import collections  # noqa: F401
import copy  # noqa: F401
import functools  # noqa: F401
import gc
import heapq  # noqa: F401
import itertools  # noqa: F401
import json  # noqa: F401
import math  # noqa: F401
import operator  # noqa: F401
import random  # noqa: F401
import re  # noqa: F401
import resource  # noqa: F401
import string  # noqa: F401
import threading  # noqa: F401
import time  # noqa: F401
import typing  # noqa: F401

from . import program, solution, tester  # noqa: F401

gc.collect()
gc.freeze()  # a child's collector leaves the shared pages alone
