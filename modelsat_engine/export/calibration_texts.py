"""Instructions and candidates that int8 scales are set on when the user brings none of their own.

Made up for this purpose, of the kinds that people send: chat, code, mathematics, lettered questions, other languages,
very short and long. The aptitude test's own keywords give one lettered question a task.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelsat_engine.aptitude import AptitudeTest, CapabilityProfile

_WRITTEN = (
    "Hi",
    "Thanks, that worked!",
    "What time is it in Lisbon when it is noon in Tokyo?",
    "Prove that there are infinitely many prime numbers.",
    "Let f(x) = 3x^2 - 12x + 7. Find the minimum of f on the interval [0, 5].",
    "Solve for x: \\frac{2x+1}{x-3} = \\sqrt{x+5}. Give the answer in simplest radical form.",
    "A bag holds 5 red and 7 blue marbles. Two are drawn without replacement. What is the chance that both are red?",
    "If a train leaves at 14:35 and arrives at 17:10 after two stops of six minutes each, how long was it moving?",
    "Compute the determinant of [[2, 0, 1], [1, 3, 2], [0, 4, 5]].",
    "Write a Python function that merges two sorted lists without using sort().",
    "def total(xs):\n    s = 0\n    for x in xs\n        s += x\n    return s\n\nWhy does this not run?",
    "Explain the difference between a mutex and a semaphore to a first-year student.",
    "SELECT name, COUNT(*) FROM orders GROUP BY customer_id; -- why does the database refuse this?",
    "Refactor this C++ loop into a range-based for: for (size_t i = 0; i < v.size(); ++i) sum += v[i];",
    "Write a bash one-liner that lists the ten largest files below the current folder.",
    "Translate into French: 'The library is closed on public holidays, but you may return books through the slot.'",
    "Übersetze ins Englische: Der Vertrag verlängert sich um ein Jahr, wenn er nicht rechtzeitig gekündigt wird.",
    "¿Cuál es la capital de Australia y por qué no es Sídney?",
    "请用三句话解释什么是机器学习。",
    "Summarise the plot of a fairy tale of your choice in exactly three sentences.",
    "Write a poem of four lines about rain. Do not use the letter a.",
    "List five synonyms of 'quick', all in lowercase, separated by semicolons.",
    "Answer with yes or no only: is every square a rectangle?",
    "Which amino acid substitution causes sickle cell disease, and why does haemoglobin then polymerise?",
    "A patient has a fever, a stiff neck and avoids light. Which examination comes first?",
    "Is a spoken promise to sell a house binding? Answer for a common-law country in two sentences.",
    "Which of the following is a noble gas?\n(A) nitrogen\n(B) argon\n(C) chlorine\n(D) hydrogen",
    "Which treaty ended the Thirty Years' War?\nA. Utrecht\nB. Westphalia\nC. Versailles\nD. Vienna\nAnswer:",
    "Question: A body of mass 2 kg slides down a plane of 30 degrees without friction. What is its acceleration?\n"
    "A. 2.5 m/s^2\nB. 4.9 m/s^2\nC. 8.5 m/s^2\nD. 9.8 m/s^2\nE. 0 m/s^2\nAnswer:",
    "Tom is taller than Ann. Ann is taller than Raj. Is Raj taller than Tom? Options: - yes - no",
    "Sort these words alphabetically: pear fig apple quince banana medlar",
    "not ( True and False ) or ( False and not True ) is",
    "I have two flutes, a violin, three drums and a trombone. How many musical instruments do I have?",
    "Today is 4 March 2019. What is the date one month and ten days ago, in MM/DD/YYYY?",
    "In the sentence 'Although it rained, they played on', which clause is subordinate?",
    "What would have happened to Rome's grain supply if Carthage had won the Second Punic War?",
    "Give me a weekly meal plan for two, vegetarian, at most 30 minutes of cooking a day, as a table.",
    "Draft a polite e-mail that asks a landlord to repair the heating before the end of the month.",
    "Compare the advantages of fixed and floating exchange rates for a small open economy.",
    "A company's current ratio fell from 2.1 to 1.4 while its quick ratio stayed the same. What changed?",
    "Explain Kant's categorical imperative with an example from software engineering.",
    "Identify the fallacy: 'You cannot prove that ghosts do not exist, so they must exist.'",
    "Balance the equation: C3H8 + O2 -> CO2 + H2O",
    "What is the time complexity of building a binary heap from n unsorted elements, and why is it not n log n?",
    "Your answer must contain at least 200 words, mention the word 'harbour' three times and end with a question. "
    "Describe a small town on the coast in winter.",
    "system: You are a careful assistant for a bank.\nuser: My card was charged twice for the same purchase yesterday, "
    "once for 42.10 and once for 41.20. The shop says that only one of the two went through on their side. What can "
    "I do, how long will it take, and will I be able to use the card in the meantime?",
    "Read the passage and answer. The river had risen all night. By morning the lower fields were under water and the "
    "miller's boat, which nobody had used since the autumn, was drifting between the apple trees. His daughter waded "
    "out, tied it to the gate, and only then went to wake her father, who had slept through everything. Who made sure "
    "that the boat was not lost, and what does the order of what she did tell about her?",
)
_LETTERS = "ABCDEFGHIJ"


def calibration_instructions(test: AptitudeTest) -> list[str]:
    """About a hundred instructions of every kind and length."""
    return [*_WRITTEN, *_lettered_questions(test)]


def _lettered_questions(test: AptitudeTest) -> Iterator[str]:
    for number, task in enumerate(test.tasks):
        other = test.tasks[(number + 1) % len(test.tasks)]
        options = [*task.keywords, *other.keywords][: 4 + number % 7]
        lines = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))
        yield f"Which of these is the odd one out among the topics of {task.name.replace('_', ' ')}?\n{lines}\nAnswer:"


def calibration_candidates(test: AptitudeTest, zoo: tuple[CapabilityProfile, ...]) -> list[CapabilityProfile]:
    """The bundle's own candidates, and made-up ones from hopeless to perfect, since any may join later."""
    made_up = [
        CapabilityProfile(
            f"all {share:.0%}",
            {task.name: round(share * len(task.item_ids)) for task in test.tasks},
            {task.name: len(task.item_ids) for task in test.tasks},
            test_id=test.id,
        )
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return [*zoo, *made_up]
