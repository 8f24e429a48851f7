"""Function words of the frequent languages in Latin and Cyrillic letters: what tells them apart in a few words.

Those of English and French are part of the vocabulary of `spoutnik.tasks.language`, whose verdicts on the families' texts stand
on them: they stay as they are. A word may stand under several languages; it then counts for each by its share.
"""

FUNCTION_WORDS = {
    "en": """the of and to in is it you that he was for on are with as his they at be this have from or had by but not
        what all were we when your can said there use an each which she do how their if will up other about out many
        then them these so some her would make like him into time has look two more write go see no way could my than
        first been who its now find down did get come made may after before yes right because equal number answer
        question thinking three four five again also only must very here where why""",
    "fr": """le la les un une des du de et est il elle que qui dans pour pas sur au aux avec ce cette ces se sa son ses
        ne plus par je tu nous vous ils elles mais ou où donc car si tout tous toute fait faire peut été être avoir
        ont sont était comme on y en leur lui bien aussi même sans deux trois quatre cinq encore puis alors ainsi
        oui non quel quelle quels quelles combien comment pourquoi quand réponse réflexion nombre égal parce très""",
    "de": """der die das ein eine einen einem einer eines und ist sind war waren nicht kein keine mit von vom zu zum zur auf für
        im in den dem des er sie es wir ihr ich du man sich als auch aber oder wenn dann also wie was wer wo warum viele viel
        jeder jede jedes jeden pro nach bei aus um an am so nur noch schon über unter hat haben hatte wird werden wurde kann
        können muss müssen soll diese dieser dieses zwei drei vier fünf mehr weniger insgesamt dass weil bis durch""",
    "es": """el la los las un una unos unas y o de del en que es son era fue con por para como pero más menos se su sus le les
        lo al no sí si cuántos cuántas cuánto cuánta cuál qué quién cada todo todos toda todas tiene tienen hay este esta estos
        estas ese esa esto eso cuando donde porque entonces luego también muy ya sin sobre entre hasta desde dos tres cuatro
        cinco ella ellos ellas yo tú nosotros cuesta necesita había ser está están puede así total""",
    "it": """il lo la i gli le un uno una e o di del della dei delle degli dello da dal dalla in nel nella nei nelle con su sul
        sulla per tra fra che è sono era ha hanno aveva non si se ci ma anche più meno come quanto quanti quante quanta quale
        chi cosa perché quindi allora poi dove quando ogni tutto tutti tutte questo questa questi queste quello quella suo sua
        suoi sue loro lui lei noi io due tre quattro cinque molto già ancora""",
    "pt": """o a os as um uma uns umas e ou de do da dos das em no na nos nas que é são era foi com por pelo pela para como mas
        mais menos se seu sua seus suas lhe não sim quantos quantas quanto quanta qual quem cada todo todos toda todas tem têm
        há este esta isso isto esse essa quando onde porque então depois também muito já sem sobre entre até desde dois duas
        três quatro cinco ela ele eles elas eu nós você ao à aos""",
    "nl": """de het een en of is zijn was waren niet geen met van voor op in te aan bij uit naar over onder door om tot dat die
        deze dit hij zij ze wij we jij je ik u er haar hem hun maar ook als dan dus want hoe wat wie waar waarom hoeveel
        elke elk ieder iedere veel meer minder heeft hebben had wordt worden kan kunnen moet moeten zal twee drie vier vijf
        nog al zo wel""",
    "pl": """i w na z do nie się że to jest są był była było od po za o u dla jak ale lub albo oraz czy co kto gdzie kiedy ile
        który która które którzy każdy każda każdego jego jej ich on ona oni my ja ty tak tylko już jeszcze więc ponieważ
        przez przed pod nad bez jeśli może ma mają miał dwa dwie trzy cztery pięć więcej mniej razem tego tym ten ta te""",
    "sv": """och att det som en ett är var i på av för med till den de om men inte han hon vi jag du ni sig sin sitt sina från
        har hade kan ska skulle måste hur många mycket vad vem varför när eller så också bara mer mindre efter under över
        varje alla två tre fyra fem dem deras hans hennes denna detta dessa sedan då""",
    "da": """og at det som en et er var i på af for med til den de om men ikke han hun vi jeg du sig sin sit sine fra har havde
        kan skal skulle må hvor mange meget hvad hvem hvorfor når eller så også kun mere mindre efter under over hver alle to
        tre fire fem dem deres hans hendes denne dette disse derefter bliver""",
    "no": """og at det som en et er var i på av for med til den de om men ikke han hun vi jeg du seg sin sitt sine fra har hadde
        kan skal skulle må hvor mange mye hva hvem hvorfor når eller så også bare mer mindre etter under over hver alle to tre
        fire fem dem deres hans hennes denne dette disse deretter blir""",
    "fi": """ja on ei että se hän he me minä sinä te ne oli ovat ole joka jotka mutta tai kun kuin niin myös vain jos kuinka
        monta paljon mikä kuka missä miksi koska sitten enemmän vähemmän kaksi kolme neljä viisi jokainen kaikki hänen heidän
        tämä nämä joten yhteensä hänellä""",
    "cs": """a v na s z do se že to je jsou byl byla bylo od po za o u pro jak ale nebo ani kdo kde kdy kolik který která které
        každý každá jeho její jejich on ona oni my já ty tak jen už ještě tedy protože přes před pod nad bez pokud může má mají
        dva dvě tři čtyři pět více méně celkem není jako když""",
    "ro": """și în de la cu pe din un o este sunt era au a ai al ale care că nu se să sau dar mai pentru prin după până când cât
        câți câte câtă cum unde cine fiecare toate toți tot ei ea el lui lor noi eu tu doi două trei patru cinci apoi deci
        dacă foarte doar fi are aceasta acest această""",
    "hu": """a az és hogy nem is egy van volt vannak meg de ha mint csak már még ki mi mit hány mennyi hol mikor miért minden
        ő ők mi én te ez ezt azt ezek azok vagy mert akkor tehát kell lehet után előtt alatt két kettő három négy öt több
        kevesebb összesen annak ennek""",
    "tr": """ve bir bu şu o da de ne için ile ama veya gibi çok daha az kaç nasıl kim nerede neden her tüm bütün var yok değil
        olan olarak kadar sonra önce iki üç dört beş ben sen biz siz onlar onun onların ise ki mi mı mu mü toplam""",
    "vi": """và của là có không được một các những cho với trong này đó khi thì mà ở từ đến ra vào lên như nếu vì nhưng cũng
        đã sẽ đang bao nhiêu mỗi tất cả hai ba bốn năm anh cô ấy họ chúng tôi bạn người số tổng cộng còn lại nên hơn""",
    "id": """yang dan di ke dari untuk dengan ini itu adalah pada dalam tidak akan ada ia dia mereka kami kita saya anda juga
        atau tetapi tapi jika karena maka lalu kemudian setiap semua berapa banyak apa siapa mana bagaimana mengapa dua tiga
        empat lima lebih kurang oleh sebagai telah sudah bisa dapat harus satu total""",
    "sw": """na ya wa kwa ni za la cha vya katika kila hii hiyo huo hizo hizi huyu yake wake zake lake chake yao wao zao kama
        lakini au pia hivyo kwamba ili sasa baada kabla zaidi chini ngapi gani nini nani wapi je ana wana ina kuna alikuwa
        mbili mbili tatu nne tano moja wote zote yote siku""",
    "ru": """и в на не что с как по к из у за от о для это она он они его ее её их мы вы я ты но или если то же бы был была было
        были так все всё еще ещё уже только когда где кто сколько каждый каждая каждую каждого чтобы после до при без под во со
        ко два две три четыре пять один одна одну одном чем больше меньше может есть нет который которые себе сейчас если затем
        также него них всего стоит стоят раза потом""",
    "uk": """і й в у на не що з із як по до за від о для це вона він вони його її їх ми ви я ти але або якщо то ж би був була
        було були так все всі ще вже тільки коли де хто скільки кожен кожна кожну щоб після при без під два дві три чотири один
        одна ніж більше менше може є немає який які також та потім зараз усього""",
    "bg": """и в на не че с със като по към от у за до о това тя той те него я ги ние вие аз ти но или ако то би беше бяха така
        всички още вече само когато къде кой колко всеки всяка след при без под да се е са ще си му ѝ им два две три четири
        пет един една едно повече по-малко може има няма който която които също""",
    "sr": """и у на не што са као по ка из за од о до то она он они његов њен их ми ви ја ти али или ако би био била било били
        тако све још већ само када где ко колико сваки свака сваку да се је су ће си му јој им два две три четири пет један
        једна више мање може има нема који која које такође после пре без под ли""",
}

TELLING_LETTERS = {  # those that few languages write: a word with one of them counts as a function word of these
    "de": "ß", "es": "ñ", "pt": "ãõ", "fr": "œû", "pl": "łąęśźżćń", "sv": "å", "da": "åøæ", "no": "åøæ", "cs": "řěů",
    "ro": "țșţă", "hu": "őű", "tr": "ğış", "vi": "ơưđạảấầẩậắặẻẽếềểệỉịọỏốồổộớờởợụủứừửựỳỷỹ",
    "ru": "ыэё", "uk": "іїєґ", "sr": "јљњћђџ",
}
