"""Instructions written for these tests, by subject and by difficulty; none is of a benchmark."""

from __future__ import annotations

QUANTITATIVE = (
    "A matrix A satisfies A^2 = A and has rank 3. What is the trace of A?\nA. 0\nB. 1\nC. 3\nD. 9",
    "How many solutions does x^2 = 1 have in the integers modulo 24?\nA. 2\nB. 4\nC. 6\nD. 8",
    "A ball is thrown upwards at 14 m/s from a roof 20 m high. How long until it hits the ground? Use g = 9.8 m/s^2.",
    "Compute the derivative of ln(sin x) at x = pi/4.\nA. 0\nB. 1\nC. -1\nD. sqrt(2)",
    "A 3 ohm and a 6 ohm resistor are in parallel, in series with 4 ohms, across 12 V. What current flows?",
    "In how many ways can 9 identical coins be put into 4 distinct boxes so that no box is empty?",
    "Let G be a group of order 21 that is not abelian. How many elements of order 3 does it have?",
    "A sample of 40 has mean 12 and standard deviation 3. Give the 95 % confidence interval of the mean.",
    "What is the worst-case time complexity of building a binary heap from n unsorted keys?\nA. O(n)\nB. O(n log n)",
    "Two trains 180 km apart approach each other at 50 and 70 km/h. After how many minutes do they meet?",
    "Find the wavelength of a photon of energy 2.5 eV.\nA. 248 nm\nB. 496 nm\nC. 620 nm\nD. 992 nm",
    "Evaluate the integral of x e^(2x) from 0 to 1.",
    "A fair die is rolled until a six appears. What is the variance of the number of rolls?\nA. 6\nB. 30\nC. 36\nD. 25",
    "What is the pH of a 0.02 molar solution of a weak acid with Ka = 1.8e-5?",
)
HUMANITIES = (
    "Which belief is shared by the Stoics and the Epicureans?\nA. The soul is material\nB. Pleasure is the only good",
    "Which treaty ended the Thirty Years' War?\nA. Utrecht\nB. Westphalia\nC. Versailles\nD. Tordesillas",
    "What does a court mean when it says that a contract is voidable rather than void?",
    "Which of these rests most on duty rather than on consequences?\nA. Kant\nB. Bentham\nC. Mill\nD. Singer",
    "What was the main aim of the Marshall Plan after the Second World War?",
    "Under international law, when may a state use force without a decision of the Security Council?",
    "Which sociologist described the iron cage of bureaucracy?\nA. Durkheim\nB. Weber\nC. Marx\nD. Simmel",
    "What is meant by the establishment clause in the constitution of the United States?",
    "Which of the five pillars of Islam concerns giving to the poor?\nA. Salat\nB. Sawm\nC. Zakat\nD. Hajj",
    "How did the printing press change religious life in Europe in the sixteenth century?",
    "Which argument for the existence of God starts from the order seen in nature?\nA. Ontological\nB. Teleological",
    "What distinguishes libel from slander?\nA. Intent\nB. Form: written or spoken\nC. Damage\nD. Who says it",
    "Why did the Ottoman Empire take the side of Germany in 1914?",
    "A senator speaks for hours to delay a vote. What is this called?\nA. Veto\nB. Filibuster\nC. Lobbying\nD. Cloture",
)
# The same subject twice: what a school child may know, and what takes a specialist. The first is the easier one.
EASY_AND_HARD = (
    (
        "Which planet is closest to the sun?\nA. Mars\nB. Mercury\nC. Venus\nD. Earth",
        "By what factor does the sun's luminosity exceed that of a star of the same radius and half its temperature?",
    ),
    (
        "What is the capital of France?\nA. Lyon\nB. Paris\nC. Nice\nD. Lille",
        "A map in the Mercator projection shows a distance of 12 cm at latitude 60. What would it be at the equator?",
    ),
    (
        "Which organ pumps blood through the body?\nA. The liver\nB. The heart\nC. The lungs\nD. The kidneys",
        "A heart beats 75 times a minute with an ejection fraction of 0.6 and an end-diastolic volume of 130 ml. "
        "By how much does its output change when the fraction falls to 0.45?",
    ),
    (
        "What is 7 times 8?\nA. 54\nB. 56\nC. 58\nD. 63",
        "How many ordered triples of positive integers have a product of 7! and are pairwise coprime?",
    ),
    (
        "Which gas do plants take in for photosynthesis?\nA. Oxygen\nB. Carbon dioxide\nC. Helium\nD. Neon",
        "How many moles of ATP and NADPH does the Calvin cycle need for a net gain of 3 moles of triose phosphate?",
    ),
    (
        "What do we call an animal that eats only plants?\nA. A carnivore\nB. A herbivore\nC. An omnivore",
        "Two loci 12 centimorgans apart are heterozygous in coupling. What share of the gametes carries one recessive "
        "and one dominant allele, by Haldane's map function?",
    ),
    (
        "Who wrote Romeo and Juliet?\nA. Dickens\nB. Shakespeare\nC. Austen\nD. Milton",
        "Let f be entire with |f(z)| <= 3|z|^2 + 5 for all z, f(0) = 1, f(1) = 2 and f(-1) = 4. Find f(2i).",
    ),
    (
        "If a shirt costs 20 dollars and is sold at half price, what does it cost?\nA. 5\nB. 10\nC. 15\nD. 40",
        "A bond of 8 years pays 5 % twice a year and yields 6.2 %. What is its modified duration?",
    ),
    (
        "What is the freezing point of water in degrees Celsius?\nA. 0\nB. 32\nC. 100\nD. -40",
        "Find the melting point at 150 bar of a solid whose volume grows by 1.6 cm^3/mol on melting at 5.4 kJ/mol and "
        "279 K.",
    ),
    (
        "In which direction does the sun rise?\nA. East\nB. West\nC. North\nD. South",
        "A Foucault pendulum hangs at latitude 37. Through what angle does its plane turn in 5 sidereal hours?",
    ),
    (
        "Which of these is a renewable source of energy?\nA. Coal\nB. Wind\nC. Oil\nD. Gas",
        "A turbine sweeps 5,000 m^2 in air of 1.2 kg/m^3 at 9 m/s. What fraction of Betz's limit is 700 kW?",
    ),
    (
        "What is the opposite of hot?\nA. Warm\nB. Cold\nC. Dry\nD. Loud",
        "In a Carnot cycle on a photon gas between T and 2T, what is the ratio of the volumes at the ends of the "
        "adiabatic expansion?",
    ),
)
