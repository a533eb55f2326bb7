// Examples of a type, at least one of each variant. A variant without an example does not compile.
// Unit tests in src include this file.

/// `Type; Pattern => "name" example, "name" example; ...`
macro_rules! one_of_each {
    ($type:ty; $($pattern:pat => $($name:literal $example:expr),+;)+) => {{
        fn _every_variant_has_an_example(it: &$type) {
            match it {
                $($pattern => (),)+
            }
        }
        let mut all: Vec<(&'static str, $type)> = Vec::new();
        $($({
            let example: $type = $example;
            assert!(matches!(&example, $pattern), "{} is another variant", $name);
            all.push(($name, example));
        })+)+
        all
    }};
}
