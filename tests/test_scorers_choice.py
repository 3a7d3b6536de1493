"""Multiple choice: what models write, in English and Chinese, and the letter they mean."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scorers import score

from evalrunner.errors import ScorerError
from evalrunner.scorers.choice import choice

OPTIONS = ["Rome", "Paris", "Oslo", "Bern"]

ANSWERS = [
    # the answer, said in so many words
    ("The answer is B.", "B"),
    ("The answer is (B).", "B"),
    ("The answer is **B**.", "B"),
    ("**The correct answer is: B) Paris**", "B"),
    ('The answer is "B".', "B"),
    ("the answer is b", "B"),
    ("The correct answer is option B, Paris.", "B"),
    ("The best choice is B because of the river.", "B"),
    ("The answer to the question about France is most likely B.", "B"),
    ("Answer: B", "B"),
    ("**Answer:** B", "B"),
    ("ANSWER: B. Paris", "B"),
    ("Answer: b) Paris", "B"),
    ("Answer - B", "B"),
    ("### Final answer\nB", "B"),
    ("Final Answer: $\\boxed{B}$", "B"),
    ("\\boxed{B}", "B"),
    ("\\[\\boxed{\\text{B}}\\]", "B"),
    ("\\boxed{\\textbf{(B)} Paris}", "B"),
    ("<answer>B</answer>", "B"),
    ("Answer: [[B]]", "B"),
    ("答案是B。", "B"),
    ("答案：B", "B"),
    ("答案：Ｂ", "B"),
    ("【答案】B", "B"),
    ("**答案：B. 巴黎**", "B"),
    ("正确答案为（B）", "B"),
    ("正确答案是选项B：巴黎", "B"),
    ("本题的答案应该是 B 选项。", "B"),
    ("正确选项是B", "B"),
    ("正确的选项为 B。", "B"),
    ("说法正确的是B", "B"),
    ("故选：B", "B"),
    ("故选 (B)。", "B"),
    ("因此应选 B。", "B"),
    ("所以选择B", "B"),
    ("答案选B", "B"),
    # the explanation speaks of other letters
    ("The answer is B. Option A is wrong because Rome is in Italy.", "B"),
    ("The answer is B, A is wrong.", "B"),
    ("The answer is B and A is wrong.", "B"),
    ("答案是B。选项A错误，选项C错误。", "B"),
    ("答案：B\n\n解析：A项不对，选A的人忽略了首都。", "B"),
    ("A is tempting, but the answer is (B)", "B"),
    ("The answer is not A. The answer is B.", "B"),
    ("答案不是A，而是B。", "B"),
    ("At first I thought the answer is A. On reflection, the answer is B.", "B"),
    ("选项A说法正确但不符合题意。故选B。", "B"),
    ("Option A: Rome is in Italy.\nOption B: Paris is in France.\nI choose option B, not A", "B"),
    ("B) because A is wrong", "B"),
    ("B\n\nA. Rome is in Italy.\nC. Oslo is in Norway.", "B"),
    ("**B. Paris**\n\nOption A is in Italy, option C in Norway.", "B"),
    ("A. Rome\nB. Paris\nC. Oslo\nD. Bern\n\nAnswer: B", "B"),
    ("A is in Italy, C in Norway, D in Switzerland.\n\n(B)", "B"),
    ("Option B is correct. Option A is wrong.", "B"),
    ("A错误，B正确，C错误。", "B"),
    ("(B) is the correct answer, since A is in Italy.", "B"),
    ("It can't be A or C; B is the best answer.", "B"),
    # articles and pronouns
    ("The answer is a mixture of two gases, so B.", "B"),
    ("Answer: A mixture of two gases, which is B.", "B"),
    ("The answer is A because it is in Italy.", "A"),
    ("The answer is a.", "A"),
    ("The answer is (a) Rome", "A"),
    ("A", "A"),
    ("a) Rome", "A"),
    ("A because B is in France", "A"),
    # short and chosen
    ("B", "B"),
    ("b", "B"),
    ("(B)", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ("B) Paris", "B"),
    ("B. Paris", "B"),
    ("B: Paris", "B"),
    ("B、巴黎", "B"),
    ("B - Paris", "B"),
    ("Option B", "B"),
    ("选B", "B"),
    ("我选择 B。", "B"),
    ("A 不对，选B", "B"),
    ("不选A，选B", "B"),
    ("I would go with B, not A.", "B"),
    ("We conclude B", "B"),
    ("It is B, not A or C.", "B"),
    ("It is B, not A.", "B"),
    ("It is Paris", "B"),
    ("Paris is the capital of France.", "B"),
    # more of what models write
    ("Correct answer: **B**\n\n**Explanation:**\n- A: Rome is the capital of Italy.\n- B: Paris is right.\n- C: no.", "B"),
    (
        "All:\n\nA) Rome – incorrect.\nB) Paris – correct.\nC) Oslo – incorrect.\nD) Bern – incorrect.\n\nTherefore, the correct answer is **B) Paris**.",
        "B",
    ),
    ("Let's analyze each option:\n\nA) Rome – incorrect.\nB) Paris – correct.\nC) Oslo – incorrect.\nD) Bern – incorrect.\n\nSo B.", "B"),
    ("The correct option is: **(B)**", "B"),
    ("My answer is B", "B"),
    ("I think it's B.", "B"),
    ("I'd say B, because Paris is the capital", "B"),
    ("Based on the above, option B is the best choice.", "B"),
    ("So the answer is: B.\n\nNote that A would be right for Italy.", "B"),
    ("**Answer: (B) Paris**", "B"),
    ("Answer:\nB) Paris", "B"),
    ("The answer is\n\n\\[\n\\boxed{B}\n\\]", "B"),
    ("正确答案：B\n\n解析：A选项是意大利首都，因此A不正确；C选项错误。", "B"),
    ("我认为答案是 B。", "B"),
    ("根据题意，选择B。因为A是意大利的首都。", "B"),
    ("B选项正确。", "B"),
    ("选项B是正确的。", "B"),
    ("综上所述，本题选B。", "B"),
    ("答案：**B**", "B"),
    ("答案为B项", "B"),
    ("B：巴黎", "B"),
    ("B．巴黎", "B"),
    ("首先排除A和C，因此答案选B。", "B"),
    ("A、C、D错误，B正确，故本题答案为B。", "B"),
    ("正确答案是A还是B？我认为是B。", None),
    ("因此，正确的选项是：\n\n**B. 巴黎**", "B"),
    ("The correct answer is not listed.", None),
    ("The answer could be B or C, I am not sure.", None),
    ("Option A is incorrect. Option B is correct. Option C is incorrect. Option D is incorrect.", "B"),
    ("Statement A is true but irrelevant. The best answer is therefore B", "B"),
    ("The answer to this question depends on a number of factors. B is the most accurate.", "B"),
    ("Choice: B", "B"),
    ("Choice B", "B"),
    ("Option: B", "B"),
    ("Selected option: B", "B"),
    ('{"answer": "B"}', "B"),
    ('```json\n{"answer": "B", "reason": "A is in Italy"}\n```', "B"),
    ("answer=B", "B"),
    ("The final answer is $B$.", "B"),
    ("The final answer is: $\\boxed{\\text{(B)}}$", "B"),
    ("I choose A. Wait, no. I choose B.", "B"),
    ("The answer isn't A; it's B.", "B"),
    ("Among A, B, C and D, the answer is B", "B"),
    ("the correct answer would be b) Paris", "B"),
    ("Paris (B)", "B"),
    ("(b)", "B"),
    ("b.", "B"),
    ("A. Rome", "A"),
    ("不是A，是B", "B"),
    ("这道题选 b", "B"),
    ("应该选A吗？不，应该选B。", "B"),
    # settled on nothing
    ("", None),
    ("I cannot answer this question.", None),
    ("抱歉，我无法回答这个问题。", None),
    ("I do not know. A good guess is hard here.", None),
    ("A or B", None),
    ("The answer is A or B.", None),
    ("The answer is either B or C", None),
    ("Answer: A, B", None),
    ("答案：AB", None),
    ("答案是B和C", None),
    ("Both B and C are correct", None),
    ("It is not B.", None),
    ("A. Rome\nB. Paris\nC. Oslo\nD. Bern", None),
    ("neither", None),
    ("Because of a bad cold", None),
    ("Rome and Paris", None),
    ("ABBA", None),
    ("The language is C++.", None),
]


@pytest.mark.parametrize(("answer", "letter"), ANSWERS)
def test_the_letter_an_answer_settles_on(answer, letter):
    """However a model says it, the letter it settles on is found, and no letter of its explanation; where it settles on none, nothing is guessed."""
    found = {wanted: score(choice(choices="options"), answer, wanted, options=OPTIONS) for wanted in "ABCD"}
    assert [wanted for wanted in "ABCD" if found[wanted].value == 1] == ([letter] if letter else [])
    assert all("no choice found, expected" in one.why for one in found.values()) == (letter is None)


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("It is vitamin C.", ["Vitamin A", "Vitamin C", "Iron", "Zinc"], "B"),
        ("It is an artist.", ["art", "an artist", "a party", "a cart"], "B"),
        ("None of the above", ["1", "2", "3", "None of the above"], "D"),
    ],
)
def test_an_option_named_by_its_text(answer, options, letter):
    """With `choices` the text of one option is a choice, as whole words, and a letter inside it is none."""
    assert score(choice(choices="options"), answer, letter, options=options).value == 1


def test_choice_checks_its_letters_and_target():
    """Letters that cannot be told apart are refused at once; a target that is no letter is a null score."""
    with pytest.raises(ValueError, match="letters"):
        choice(letters="AA")
    with pytest.raises(ScorerError, match="letters"):
        score(choice(), "A", "Paris")
    assert score(choice(letters="ABCDEF"), "答案是F", "F").value == 1
    assert score(choice(letters="ABCDEFGHIJ"), "I think the answer is I.", "I").value == 1
    assert score(choice(letters="1234"), "The answer is 2, since 12 is too many.", "2").value == 1
    assert score(choice(), "B", "(B)").value == 1


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["answer", " is ", "A", "b", "(", ")", "答案", "选", "**", "\n", ": ", "not ", ", ", "$", "\\boxed{", " "]), max_size=200).map(
        "".join
    )
)
def test_no_answer_breaks_it(answer):
    """Whatever is written, the score is 0 or 1."""
    assert score(choice(choices="options"), answer, "A", options=OPTIONS).value in (0, 1)
