"""reasoning-gym's sets (0.1.25): by category, those that are unfit to train on, and what their scorers may be shown."""

import re

from spoutnik.tasks.exemptions import Exemption

_BY_CATEGORY = {
    "algebra": """
        complex_arithmetic intermediate_integration polynomial_equations polynomial_multiplication simple_equations
        simple_integration""",
    "algorithmic": """
        ab base_conversion binary_alternation binary_matrix caesar_cipher count_primes cryptarithm game_of_life
        game_of_life_halting graph_color group_anagrams isomorphic_strings jugs letter_counting letter_jumble
        manipulate_matrix number_filtering number_sorting palindrome_generation palindrome_partitioning pool_matrix
        ransom_note rotate_matrix rotten_oranges sentence_reordering spell_backward spiral_matrix string_insertion
        string_manipulation string_splitting string_synthesis word_ladder word_sequence_reversal word_sorting""",
    "arc": "arc_1d arc_agi rearc",
    "arithmetic": """
        basic_arithmetic bitwise_arithmetic calendar_arithmetic chain_sum count_bits decimal_arithmetic decimal_chain_sum
        dice fraction_simplification gcd gsm_symbolic lcm leg_counting number_format power_function prime_factorization
        products time_intervals""",
    "code": "bf codeio",
    "cognition": "color_cube_rotation figlet_font modulo_grid needle_haystack number_sequence rectangle_count rubiks_cube",
    "games": """
        boxnet countdown emoji_mystery futoshiki kakurasu knight_swap mahjong_puzzle maze mini_sudoku n_queens puzzle24
        rush_hour sokoban sudoku survo tower_of_hanoi tsumego""",
    "geometry": "advanced_geometry simple_geometry",
    "graphs": "course_schedule family_relationships largest_island path_star quantum_lock shortest_path",
    "induction": "acre list_functions",
    "logic": "aiw circuit_logic knights_knaves propositional_logic self_reference syllogism zebra_puzzles",
    "probability": "coin_flip",
}

SETS = {name: category for category, names in _BY_CATEGORY.items() for name in names.split()}

_EVALUATES = "its scorer evaluates the answer as Python (sympy.parse_expr), and no form is that of all right answers."
_CONTINUED = "its scorer gives full marks to the right words with any others behind them."

EXCLUDED: dict[str, str] = {
    "boxnet": "it has no answers of its own on which its scorer could be tried, and the scorer raises for what is no plan.",
    "circuit_logic": "one answer (0) is right for some six in ten of its problems.",
    "coin_flip": "its scorer gives full marks to 0 for nine in ten of its problems.",
    "game_of_life_halting": "its scorer gives full marks to any answer that is not empty.",
    "intermediate_integration": _EVALUATES,
    "letter_jumble": _CONTINUED,
    "propositional_logic": "one answer (P or Q) is right for eight in ten of its problems.",
    "puzzle24": "its scorer gives full marks to any four numbers that make 24, and evaluates the answer as Python.",
    "simple_integration": _EVALUATES,
    "syllogism": "one answer (Yes) is right for seven in ten of its problems.",
    "word_sorting": _CONTINUED,
}

_EXPRESSION = re.compile(r"(?!.*\*\s*\*)[0-9+\-*/() ]{1,120}")  # of small integers; no powers
_POWER = r"[a-z](?:\*\*\d{1,3})?"
_TERM = rf"(?:\d{{1,15}}(?:\*{_POWER})*|{_POWER}(?:\*{_POWER})*)"
_CLAUSE = r"[A-Z][a-z]{1,20} is an? [a-z]{1,20}"

# The form of all answers that can be right, of sets whose scorers evaluate what they read as Python (binary_matrix, countdown,
# n_queens, polynomial_multiplication, spiral_matrix, string_insertion) or overlook what stands around it. No other answer
# reaches them.
ACCEPTED: dict[str, re.Pattern] = {
    "binary_matrix": re.compile(r"[0-9 \n]{1,2000}"),
    "complex_arithmetic": re.compile(r"[-+0-9. ij]{1,80}"),  # nan is within any distance
    "countdown": _EXPRESSION,
    "gsm_symbolic": re.compile(r"-?\d+(?:\.\d+)?"),  # its first number counts
    "kakurasu": re.compile(r"[01 \n]{1,500}"),
    "knights_knaves": re.compile(rf"{_CLAUSE}(?:,? (?:and )?{_CLAUSE}){{0,20}}\.?"),
    "n_queens": re.compile(r"[Q_ \n]{1,1000}"),
    "polynomial_multiplication": re.compile(rf"-?{_TERM}(?: ?[+-] ?{_TERM}){{0,60}}"),
    "quantum_lock": re.compile(r"[A-Z](?: ?\u2192 ?[A-Z]){0,100}"),
    "sokoban": re.compile(r"[UDLR]{1,2000}"),
    "spiral_matrix": re.compile(r"[0-9 -]{1,2000}"),
    "string_insertion": re.compile(r"[A-Z]{1,500}"),
    "survo": re.compile(r"[0-9 \n]{1,500}"),
    "time_intervals": re.compile(r"(?:\d+ days?)?(?:, )?(?:\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?"),
    "tower_of_hanoi": re.compile(r"Move disk \d+ from Peg \d+ to Peg \d+(?:\nMove disk \d+ from Peg \d+ to Peg \d+){0,400}"),
}

_BINARY = {"constants": Exemption("a question of yes or no: half of them are right by chance", limit=0.7)}
EXEMPTIONS: dict[str, dict[str, Exemption]] = {
    "course_schedule": _BINARY,
    "isomorphic_strings": _BINARY,
    "ransom_note": _BINARY,
}
