"""A verdict depends on what the solution computes alone: nothing that it does to its own process changes it."""

import pytest
from code_helpers import needs_bubblewrap

from spoutnik.errors import UserError
from spoutnik.tasks.code import AssertTests, Case, FunctionTests, HumanEvalTests, StdinTests, as_tests, grade, judge, passes

pytestmark = needs_bubblewrap

ADD = "def add(a, b):\n    return a + b\n"
ADD_TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert abs(candidate(0.1, 0.2) - 0.3) < 1e-6\n"


def defined(body: str, head: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    return f"{head}\ndef add(a, b):\n{lines}\n"


def test_a_right_solution_passes_every_form_of_the_tests():
    assert passes(ADD, ADD_TESTS)
    assert passes(ADD, "\n".join(ADD_TESTS))
    assert passes(ADD, CHECK + "check(add)")
    assert passes(ADD, CHECK)
    assert passes(ADD, HumanEvalTests("def add(a, b):\n", CHECK, "add"))
    assert passes("    return a + b\n", HumanEvalTests("def add(a, b):\n", CHECK, "add"))
    assert passes(ADD, [{"fn_name": "add", "input": [1, 2], "output": 3}])
    assert passes("print(sum(map(int, input().split())))", [{"input": "1 2\n", "output": "3\n"}])
    assert passes("print(sum(map(int, input().split())))", {"inputs": ["1 2", "3 4"], "outputs": ["3", "7"]})


def test_a_wrong_solution_fails_every_form_of_the_tests():
    wrong = "def add(a, b):\n    return a - b\n"
    assert not passes(wrong, ADD_TESTS)
    assert not passes(wrong, CHECK + "check(add)")
    assert not passes(wrong, HumanEvalTests("def add(a, b):\n", CHECK, "add"))
    assert not passes(wrong, [{"fn_name": "add", "input": [1, 2], "output": 3}])
    assert not passes("print(4)", [{"input": "1 2\n", "output": "3\n"}])


EQUAL = """
class Equal{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return 0.0
    def __abs__(self): return 0.0
"""
FAKES = {
    "sys.exit": defined("import sys; sys.exit(0)"),
    "SystemExit": defined("raise SystemExit"),
    "os._exit": defined("import os; os._exit(0)"),
    "killed": defined("import os; os.kill(os.getpid(), 9)"),
    "killed group": defined("import os; os.kill(-1, 9)"),
    "exit at definition": ADD + "import sys; sys.exit(0)",
    "_exit at definition": ADD + "import os; os._exit(0)",
    "equal object": defined("return Equal()", EQUAL.format(base="")),
    "equal int": defined("return Equal()", EQUAL.format(base="(int)")),
    "equal float": defined("return Equal()", EQUAL.format(base="(float)")),
    "equal str": defined("return Equal()", EQUAL.format(base="(str)")),
    "equal list": defined("return Equal()", EQUAL.format(base="(list)")),
    "equal dict": defined("return Equal()", EQUAL.format(base="(dict)")),
    "ANY": defined("return ANY", "from unittest.mock import ANY"),
    "None": defined("return None"),
    "the class itself": "from unittest.mock import ANY as add",
    "a type": defined("return object"),
    "itself": defined("return add"),
    "marker": defined('print(\'{"passed": true, "reason": ""}\')\nreturn None'),
    "marker to every file": defined('import os\nfor n in range(256):\n'
                                    '    try: os.write(n, b\'{"passed": true, "reason": ""}\')\n'
                                    '    except OSError: pass\nreturn None'),
    "message to every file": defined('import os\nfor n in range(256):\n    try: os.write(n, b\'{"value": true}\\n\' * 9)\n'
                                     '    except OSError: pass\nreturn None'),
    "builtins": defined("return 0", "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.AssertionError = Exception\n"
                                    "def abs(x): return 0\n"),
    "AssertionError": defined("return 0", "import builtins\nclass Never(Exception): pass\nbuiltins.AssertionError = Never\n"),
    "json": defined("return Any()", "import json, pickle\nclass Any: pass\n"
                                    "json.dumps = pickle.dumps = lambda *a, **k: '{\"value\": true}'\n"),
    "frames": defined("import sys\nframe = sys._getframe()\nwhile frame:\n    for key in list(frame.f_globals):\n"
                      "        if key in ('same', 'Refused', 'encode'): frame.f_globals[key] = lambda *a: True\n"
                      "    frame = frame.f_back\nreturn 0"),
    "atexit": defined("import atexit, os\natexit.register(os._exit, 0)\nraise KeyboardInterrupt"),
    "thread": defined("import threading, os, time\nthreading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(9)"),
    "callback": defined("return lambda *args: True"),
    "raises": defined("raise AssertionError"),
    "generator": defined("yield 3"),
    "recursion": defined("return add(a, b)"),
    "deep": defined("result = []\nfor _ in range(100000): result = [result]\nreturn result"),
    "cycle": defined("result = []\nresult.append(result)\nreturn result"),
    "no such name": "x = 1",
    "not Python": "def add(a, b:",
    "NUL": ADD + "\0",
    "empty": "",
}


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES.keys())
def test_a_fake_fails(fake: str):
    assert not passes(fake, ADD_TESTS)
    assert not passes(fake, HumanEvalTests("def add(a, b):\n", CHECK, "add"))


def test_a_solution_that_hangs_is_ended():
    assert judge(ADD_TESTS, defined("while True: pass"), timeout=0.5).reason == "It took more than 0.5 seconds."


def test_text_that_is_no_code_is_a_zero():
    for answer in (None, 3, b"x", "", "I do not know.", "```rust\nfn main() {}\n```", "\0", "x" * 5_000_000):
        assert grade(ADD_TESTS, answer) == 0.0
    assert not passes(None, ADD_TESTS)


def test_the_code_of_an_answer_is_graded():
    assert grade(ADD_TESTS, f"So:\n```python\n{ADD}```\nDone.") == 1.0


def test_results_of_built_in_types_travel_whole():
    values = ("{1, 2}", "(1, (2, [3]))", "{(1, 2): {'a': None}}", "b'\\x00\\xff'", "2 + 3j", "10 ** 6000", "-2 ** 70",
              "float('inf')", "'\\ud800\\n'", "range(3)", "frozenset([1])", "Fraction(1, 3)", "Decimal('0.1')", "True", "int")
    cases = {value: value for value in values} | {"Counter('aab')": "{'a': 2, 'b': 1}", "Point(1, 2)": "(1, 2)"}
    head = "from collections import Counter, namedtuple\nfrom fractions import Fraction\nfrom decimal import Decimal\n"
    head += "Point = namedtuple('Point', 'x y')\nclass Color: pass\n"
    names = "\n".join(f"def f{number}(): return {value}" for number, value in enumerate(cases))
    tests = "from fractions import Fraction\nfrom decimal import Decimal\n"
    tests += "\n".join(f"assert f{number}() == {value}" for number, value in enumerate(cases.values()))
    assert judge(tests, head + names).reason == ""


def test_types_are_told_apart():
    for value, other in (("(1, 2)", "[1, 2]"), ("1", "'1'"), ("{1}", "frozenset()"), ("[1]", "iter([1])"), ("0", "None")):
        assert not passes(f"def f(): return {other}", f"assert f() == {value}")


def test_tests_may_loop_and_have_helpers_and_tolerance():
    tests = ("import math\nimport random\ndef near(x, y):\n    return math.isclose(x, y, rel_tol=1e-9)\n"
             "def check(candidate):\n    for _ in range(20):\n        x = random.random()\n"
             "        assert near(candidate(x), math.sqrt(x))\ncheck(root)")
    assert passes("def root(x): return x ** 0.5", tests)
    assert not passes("def root(x): return x ** 0.51", tests)


def test_an_own_class_of_the_solution_may_be_used_but_not_compared():
    stack = "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
    stack += "    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n"
    use = "s = Stack()\ns.push(3)\ns.push([4])\nassert s.pop() == [4]\nassert len(s) == 1\nassert s.items == [3]"
    assert passes(stack, use)
    assert not passes(stack + "    def __eq__(self, other): return True\n", "assert Stack() == 3")
    assert not passes(stack, "assert Stack()")


def test_setup_after_the_solution_uses_its_classes():
    solution = "class Node:\n    def __init__(self, data): self.data, self.left = data, None\n"
    solution += "def height(node): return 0 if node is None else 1 + height(node.left)\n"
    tests = AssertTests("assert height(root) == 2", setup="root = Node(1)\nroot.left = Node(2)", entry_points=("height",))
    assert passes(solution, tests)
    assert not passes(solution.replace("1 +", "2 +"), tests)


def test_a_function_named_as_a_built_in_one_is_the_solutions():
    assert passes("def sum(a, b): return a + b", ["assert sum(1, 2) == 3"])
    assert not passes(defined("return 0") + "def abs(x): return 0\n", "assert abs(add(1, 2) - 3) < 1e-6")


def test_helpers_of_a_prompt_are_the_prompts():
    prompt = "def poly(xs, x):\n    return xs[0] + xs[1] * x\n\ndef zero(xs):\n    '''Where poly is 0.'''\n"
    test = "def check(candidate):\n    assert abs(poly([1, 2], candidate([1, 2]))) < 1e-9\n"
    tests = HumanEvalTests(prompt, test, "zero")
    assert passes("    return -xs[0] / xs[1]\n", tests)
    assert not passes("def poly(xs, x): return 0\ndef zero(xs): return 5\n", tests)


def test_arguments_changed_in_place_are_seen():
    assert passes("def order(xs): xs.sort()", "xs = [2, 1]\norder(xs)\nassert xs == [1, 2]")
    assert not passes("def order(xs): pass", "xs = [2, 1]\norder(xs)\nassert xs == [1, 2]")


def test_functions_of_the_tests_are_called_back_and_no_more():
    assert passes("def twice(f, x): return f(f(x))", "assert twice(lambda x: x + 3, 1) == 7")
    spy = "def twice(f, x):\n    f.__globals__['twice'] = None\n    return 7\n"
    assert not passes(spy, "assert twice(lambda x: x + 3, 1) == 7")


def test_exceptions_of_the_solution_reach_tests_that_want_them():
    tests = "try:\n    f(-1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'negative'\n"
    assert passes("class Own(ValueError): pass\ndef f(x): raise Own('negative')", tests)
    assert not passes("def f(x): raise KeyError('negative')", tests)


def test_tests_that_ask_nothing_of_the_solution_pass_nothing():
    for tests in ("", [], "assert True", "x = 1", StdinTests(()), FunctionTests("f", ())):
        assert not passes(ADD, tests)


def test_a_failure_that_the_tests_catch_stays_one():
    tests = "try:\n    assert f() == 1\nexcept BaseException:\n    pass\nassert g() == 2"
    assert not passes("import os\ndef f(): os._exit(0)\ndef g(): return 2", tests)


def test_what_is_no_test_is_refused_with_a_sentence():
    for tests in ("assert add(1, 2 ==", 3, None, [1], [{"input": "x"}], b"assert True", {"inputs": [1], "outputs": []}):
        with pytest.raises(UserError):
            as_tests(tests)
    with pytest.raises(UserError):
        HumanEvalTests("def f():\n", "def test(): pass", "f")


def test_a_method_of_the_class_solution_is_tested():
    tests = FunctionTests("twoSum", (([[2, 7, 11], 9], [0, 1]),))
    right = "class Solution:\n    def twoSum(self, xs: List[int], target: int) -> List[int]:\n        return (0, 1)\n"
    assert passes(right, tests)
    assert not passes(right.replace("(0, 1)", "(1, 1)"), tests)


def test_a_checker_decides_between_right_outputs():
    checker = ("import sys\nwanted = int(open(sys.argv[1]).read())\na, b = map(int, open(sys.argv[3]).read().split())\n"
               "print(1 if a + b == wanted else 0)\n")
    tests = StdinTests((Case("5\n", "2 3\n"),), checker=checker)
    assert passes("n = int(input())\nprint(n - 1, 1)", tests)
    assert not passes("print(1, 1)", tests)
    assert not passes("print('1')", tests)  # the checker itself fails on it


def test_programs_may_read_and_write_files():
    tests = StdinTests((Case("5\n", "10\n"),), files=("input.txt", "output.txt"))
    assert passes("open('output.txt', 'w').write(str(2 * int(open('input.txt').read())))", tests)
    assert not passes("print(2 * int(input()))", tests)


def test_a_program_that_fails_after_the_right_output_fails():
    assert not passes("print(3)\nraise ValueError", [{"input": "", "output": "3"}])
    assert not passes("print(3)\nimport sys; sys.exit(1)", [{"input": "", "output": "3"}])
